"""Checks and measurements that run from a checkout, beside the package."""
