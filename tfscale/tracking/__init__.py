"""Mirroring of stage folders and comparisons to experiment trackers such as MLflow. A tracker may lag behind the runs
folder, but never contains data that the runs folder lacks."""
