"""Verification of a plan by reading all files of its stages and comparing them with each other.

Errors in reading damaged files are also reported. No file is written, and stages can be verified during training.
"""

from tfscale.verify.plan import Amount, amount, set_aside, verify_lineages, verify_plan
from tfscale.verify.stage import verify_stage

__all__ = ["Amount", "amount", "set_aside", "verify_lineages", "verify_plan", "verify_stage"]
