"""Tracker for MLflow. Only this package imports MLflow."""
