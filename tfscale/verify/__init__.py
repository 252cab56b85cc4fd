"""Verification: read everything that a plan's stages have written, and compare the files with each other.

An error in reading a damaged file is a finding too. Nothing is written, and stages that are being trained may be read.
"""

from tfscale.verify.plan import Amount, amount, set_aside, verify_plan
from tfscale.verify.stage import verify_stage

__all__ = ["Amount", "amount", "set_aside", "verify_plan", "verify_stage"]
