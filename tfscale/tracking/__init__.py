"""Mirroring of the stage folders to experiment trackers such as MLflow. A tracker may be behind the folders, but it
never contains anything that the folders do not."""
