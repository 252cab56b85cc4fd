"""python -m tfscale.training STAGE_DIR: trains one stage, alone or as one of the ranks that torchrun starts.

Exit codes: 0 done, 75 stopped on request or held by another process (run it again to go on), 2 the stage's folder is
not usable, 1 a failure, with the reason on standard error and in metrics.jsonl.
"""

import argparse
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

# Signals are watched before torch is imported: a stage can be stopped at any time of its life.
from tfscale.training.preemption import PREEMPTED, Preemption

if TYPE_CHECKING:
    from tfscale.training.world import World


def main() -> int:
    """Trains the stage of the folder named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tfscale.training", description=__doc__)
    parser.add_argument("stage_dir", type=Path, help="folder that holds stage.yaml")
    parser.add_argument("--supervised", action="store_true", help="stop when standard input ends")
    arguments = parser.parse_args()
    preempted = Preemption()
    preempted.watch_signals()
    if arguments.supervised:
        preempted.watch_parent()
    return _train(arguments.stage_dir, preempted)


def _train(stage_dir: Path, preempted: Preemption) -> int:
    from tfscale.checkpoint import BrokenCheckpoint
    from tfscale.data.prepared import open_data
    from tfscale.training import events
    from tfscale.training.device import environment, resolve
    from tfscale.training.files import write_json
    from tfscale.training.lock import StageHeld, StageLock
    from tfscale.training.loop import Trainer, check_vocabulary
    from tfscale.training.spec import read_spec
    from tfscale.training.watch import NonFinite
    from tfscale.training.world import World

    world = World()
    try:
        spec = read_spec(stage_dir)
        with StageLock(stage_dir) if world.leads else nullcontext():
            if (stage_dir / events.DONE_FILE).exists():
                return 0
            device = resolve(spec.run)
            data = open_data(stage_dir / spec.run.data_dir, spec.data.fingerprint)
            check_vocabulary(spec, data)
            if world.leads:
                write_json(stage_dir / "environment.json", environment(device))
            return 0 if Trainer(stage_dir, spec, data, device, world, preempted).run() else PREEMPTED
    except StageHeld as fault:
        print(fault, file=sys.stderr)
        return PREEMPTED
    except ValueError as fault:
        print(fault, file=sys.stderr)
        return 2
    except (NonFinite, BrokenCheckpoint, OSError) as fault:
        _log_end(stage_dir, world, "failed", str(fault))
        return 1
    except (RuntimeError, MemoryError) as fault:
        if not _is_out_of_memory(fault):
            raise
        _log_end(stage_dir, world, "out_of_memory", str(fault))
        return 1
    finally:
        world.close()


def _log_end(stage_dir: Path, world: "World", reason: str, message: str) -> None:
    from tfscale.training.events import EventLog

    print(message, file=sys.stderr)
    if not world.leads:
        return
    log = EventLog(stage_dir)
    log.write("end", reason=reason, message=message, time=time.time())
    log.close()


def _is_out_of_memory(fault: Exception) -> bool:
    import torch

    # The CPU allocator has no exception of its own.
    cpu = isinstance(fault, RuntimeError) and "DefaultCPUAllocator" in str(fault)
    return cpu or isinstance(fault, torch.OutOfMemoryError | MemoryError)


if __name__ == "__main__":
    sys.exit(main())
