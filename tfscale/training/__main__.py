"""Train one stage, in a single process or as one of the ranks that torchrun starts.

Exit codes: 0 on success; 75 if training was stopped on request or another process works on the stage (run the command
again to continue); 2 if the stage or a setting is invalid; 1 on another failure. The reason for a failure is written to
standard error and, in most cases, also to metrics.jsonl.
"""

import argparse
import os
import sys
import traceback
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tfscale.extensions import add_extension_argument, load_extensions, require_extensions
from tfscale.faults import PREEMPTED, USER_FAULT, UserFault

# Signal handlers are installed before torch is imported, so that a stage can be stopped at any time.
from tfscale.host import exit_quickly
from tfscale.training.preemption import Preemption

if TYPE_CHECKING:
    from tfscale.training.alarm import Alarm
    from tfscale.training.world import World


def main() -> int:
    """Train the stage in the folder named on the command line, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tfscale.training", description=__doc__)
    parser.add_argument("stage_dir", type=Path, help="folder of the stage, which contains stage.yaml")
    parser.add_argument(
        "--supervised",
        action="store_true",
        help="save a checkpoint and stop when standard input is closed or the parent process ends",
    )
    parser.add_argument("--stop-at", type=int, metavar="STEP", help="save a checkpoint and stop after this step")
    add_extension_argument(parser)
    arguments = parser.parse_args()
    try:
        preempted = Preemption(arguments.stop_at)
        preempted.watch_signals()
        if arguments.supervised:
            preempted.watch_parent()
        load_extensions(arguments.extensions)
    except (UserFault, ValueError) as fault:
        print(fault, file=sys.stderr)
        return USER_FAULT
    return _train(arguments.stage_dir, preempted)


def _train(stage_dir: Path, preempted: Preemption) -> int:
    from tfscale.training.alarm import Alarm
    from tfscale.training.world import World

    try:
        with preempted.while_ranks_meet():
            world = World()
            alarm = Alarm(world, partial(_record_end, stage_dir))
    except (RuntimeError, ValueError) as fault:
        where = f"MASTER_ADDR={os.environ.get('MASTER_ADDR')}, MASTER_PORT={os.environ.get('MASTER_PORT')}"
        reason = f"must be the address at which rank 0 accepts connections; the ranks could not connect: {fault}"
        print(f"{where}: {reason}", file=sys.stderr)
        return 1
    try:
        return _guarded(stage_dir, preempted, world, alarm)
    finally:
        alarm.stop()
        world.close()


def _guarded(stage_dir: Path, preempted: Preemption, world: "World", alarm: "Alarm") -> int:
    """Train the stage, report failures, and return the exit code. If there are several ranks, a failing rank exits
    without cleanup, because it can no longer communicate with the other ranks."""
    from tfscale.checkpoint import BrokenCheckpoint
    from tfscale.stage.lock import StageHeld
    from tfscale.training.device import is_out_of_memory
    from tfscale.training.non_finite import NonFinite

    try:
        return 0 if _stage(stage_dir, preempted, world) else PREEMPTED
    except StageHeld as fault:
        print(fault, file=sys.stderr)
        alarm.leave()
        code = PREEMPTED
    except ValueError as fault:
        print(fault, file=sys.stderr)
        if world.size > 1:  # torchrun does not forward exit codes
            alarm.ring("failed", str(fault))
        code = 2
    except (NonFinite, BrokenCheckpoint, OSError) as fault:
        print(fault, file=sys.stderr)
        alarm.ring("failed", str(fault))
        code = 1
    except (RuntimeError, MemoryError) as fault:
        if is_out_of_memory(fault):
            print(fault, file=sys.stderr)
            alarm.ring("out_of_memory", str(fault))
        elif world.size == 1:
            raise
        elif not alarm.rung():
            traceback.print_exc()
        code = 1
    if world.size > 1:
        sys.stderr.flush()
        os._exit(code)
    return code


def _stage(stage_dir: Path, preempted: Preemption, world: "World") -> bool:
    """Train the stage. Return True if the stage is finished, and False if training was stopped on request."""
    from tfscale.data.prepared import open_data
    from tfscale.stage.environment import write_environment
    from tfscale.stage.lock import stage_lock
    from tfscale.stage.result import has_result
    from tfscale.stage.spec import read_spec
    from tfscale.training.device import environment, resolve
    from tfscale.training.loop import Trainer, check_vocabulary

    spec = read_spec(stage_dir)
    require_extensions(spec.extensions, same_version=True)
    with stage_lock(stage_dir) if world.leads else nullcontext():
        if has_result(stage_dir):
            return True
        device = resolve(spec.run)
        data = open_data(stage_dir / spec.run.data_dir, spec.data.fingerprint)
        check_vocabulary(spec, data)
        if world.leads:
            write_environment(stage_dir, environment(device))
        return Trainer(stage_dir, spec, data, device, world, preempted).run()


def _record_end(stage_dir: Path, reason: str, message: str) -> None:
    from tfscale.stage.events import EventLog

    log = EventLog(stage_dir)
    log.write("end", reason=reason, message=message)
    log.close()


if __name__ == "__main__":
    exit_quickly(main())
