"""Mirrors of the stage folders in trackers such as MLflow. A mirror may lag behind the folders, never lead."""
