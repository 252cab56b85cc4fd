"""Write the first checkpoint of a grown stage, or the checkpoint of a stage with imported weights.

Exit codes: 0 on success, 75 if another process is already working on the stage, 1 on failure. The reason for a failure
is written to standard error.
"""

import argparse
import sys
from pathlib import Path

from tfscale.checkpoint import BrokenCheckpoint
from tfscale.end_with_input import end_with_input
from tfscale.extensions import add_extension_argument, load_extensions
from tfscale.faults import PREEMPTED
from tfscale.growth.grow_stage import NotPreserved, grow_stage
from tfscale.host import exit_quickly
from tfscale.stage.lock import StageHeld


def main() -> int:
    """Grow the stage in the folder that the command line names, or import its weights. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tfscale.growth", description=__doc__)
    parser.add_argument("stage_dir", type=Path, help="folder of the stage, which contains stage.yaml")
    parser.add_argument("--supervised", action="store_true", help="exit when standard input is closed")
    add_extension_argument(parser)
    arguments = parser.parse_args()
    if arguments.supervised:
        end_with_input()
    try:
        load_extensions(arguments.extensions)
        grow_stage(arguments.stage_dir)
    except StageHeld as fault:
        print(fault, file=sys.stderr)
        return PREEMPTED
    except (BrokenCheckpoint, NotPreserved, OSError, ValueError) as fault:
        print(fault, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    exit_quickly(main())
