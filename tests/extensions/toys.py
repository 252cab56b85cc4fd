"""Extension that imports all toys: `extensions=[extensions.toys]`."""

from extensions import toy_arm, toy_family, toy_growth, toy_optimizer, toy_source, toy_tracker

__version__ = "1.0"
__all__ = ["toy_arm", "toy_family", "toy_growth", "toy_optimizer", "toy_source", "toy_tracker"]
