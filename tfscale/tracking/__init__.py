"""Mirroring of data from the runs folder, such as metrics of stages, to experiment trackers such as MLflow. A tracker
may lag behind the runs folder, but only contains data that is also in the runs folder."""
