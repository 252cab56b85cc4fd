"""Verification of a plan. All files of the stages of the plan are read and compared with each other.

Damaged files are reported like other faults. No file is written, and stages can be verified during training.
"""

from tfscale.verify.plan import Amount, amount, set_aside, verify_lineages, verify_plan
from tfscale.verify.stage import verify_stage

__all__ = ["Amount", "amount", "set_aside", "verify_lineages", "verify_plan", "verify_stage"]
