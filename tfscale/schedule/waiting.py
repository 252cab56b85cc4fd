"""python -m tfscale.schedule.waiting growing|training: imports what that takes, and does it when a line comes on
standard input, the stage's folder as a JSON string. Its output then goes to the stage's log.

Exit codes: those of `tfscale.schedule.growing` and `tfscale.training`; 0 if standard input ends instead.
"""

import importlib
import json
import os
import select
import sys
from contextlib import suppress
from pathlib import Path

NEEDED = {
    "growing": ("tfscale.schedule.growing",),
    "training": ("tfscale.training.alarm", "tfscale.training.loop", "tfscale.checkpoint.stored"),
}
"""Modules; the last is for stages that begin with something."""


def main() -> int:
    """Waits, and then is the process that was asked for."""
    phase = sys.argv[1]
    with suppress(Exception):  # what cannot be imported is told by the work itself, in its log
        for name in NEEDED[phase]:
            if _told():
                break  # the work imports what it needs
            importlib.import_module(name)
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    stage_dir = Path(json.loads(line))
    log = os.open(stage_dir / f"{phase}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for output in (sys.stdout, sys.stderr):
        os.dup2(log, output.fileno())
    return _grow(stage_dir) if phase == "growing" else _train(stage_dir)


def _told() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def _grow(stage_dir: Path) -> int:
    from tfscale.schedule import growing

    sys.argv[1:] = [str(stage_dir), "--supervised"]
    return growing.main()


def _train(stage_dir: Path) -> int:
    from tfscale.training import __main__ as training

    sys.argv[1:] = [str(stage_dir), "--supervised"]
    return training.main()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # all is written; taking apart what torch has imported would take half a second more
