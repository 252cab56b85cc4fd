"""Mirroring of stage folders and comparisons to experiment trackers such as MLflow. A tracker may lag behind the runs
folder, but only contains data that is also in the runs folder."""
