"""Mirrors of the stage folders at trackers such as MLflow. A mirror may lag behind the folders; it never says more."""
