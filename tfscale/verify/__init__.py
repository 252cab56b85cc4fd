"""Verification of a plan: reads all files that its stages have written and compares them with each other.

An error in reading a damaged file is also a finding. Nothing is written, and stages in training may be verified.
"""

from tfscale.verify.plan import Amount, amount, set_aside, verify_plan
from tfscale.verify.stage import verify_stage

__all__ = ["Amount", "amount", "set_aside", "verify_plan", "verify_stage"]
