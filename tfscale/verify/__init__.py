"""Whether the ledger is true: everything that a plan's stages have written is read again and held against the rest.

Whatever a damaged file does to its reader is a finding too. Nothing is written, and stages that are being trained may
be read.
"""

from tfscale.verify.plan import Amount, amount, set_aside, verify_plan
from tfscale.verify.stage import verify_stage

__all__ = ["Amount", "amount", "set_aside", "verify_plan", "verify_stage"]
