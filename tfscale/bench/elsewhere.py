"""python -m tfscale.bench.elsewhere SETTINGS SIZE NAME: a contestant of a CPU in a process of its own, with the
environment that its users would run it in.

It says how many parameters it has in a line of JSON, and for every line that it reads it takes some steps and says how
many seconds one took. Ours have the allocator's settings that our launcher gives a stage
(`tfscale.training.allocator`); the others have what the machine's user has.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from subprocess import PIPE, Popen
from time import perf_counter

from tfscale import children
from tfscale.bench.contestants import OURS, TRANSFORMER, NotInstalled, contestant
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import ON_CPU, Size
from tfscale.training.allocator import allocator

TURN_SECONDS = 0.5
"""Steps of a turn, together at least: the first one finds caches that other processes have had, as in training hardly
any does."""


@dataclass(frozen=True)
class Elsewhere:
    """A contestant that is ready to take its turns."""

    process: Popen[bytes]
    parameters: int

    def turn(self) -> float:
        """Takes some steps; the seconds of one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def leave(self) -> None:
        """Ends the process."""
        self.process.communicate()


def elsewhere(name: str, size: Size, settings: Settings) -> Elsewhere:
    """A contestant, with its moments there.

    Raises:
        NotInstalled: its library is not there.
    """
    command = children.python(__name__, json.dumps(asdict(settings)), size.name, name)
    process = start(command, ours=name in (OURS, TRANSFORMER))
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    if "missing" in said:
        process.communicate()
        raise NotInstalled(said["missing"])
    return Elsewhere(process, said["parameters"])


def start(command: Sequence[str], ours: bool) -> Popen[bytes]:
    """A process that takes turns, with the allocator's settings of a stage or without them."""
    told = allocator()
    environment = {key: value for key, value in children.environment().items() if key not in told}
    return children.start(command, environment | told if ours else environment, stdout=PIPE)


def serve(step: Callable[[], object]) -> None:
    """Takes a turn for every line on standard input."""
    for _ in sys.stdin:
        started, steps = perf_counter(), 0
        while perf_counter() - started < TURN_SECONDS:
            step()
            steps += 1
        print((perf_counter() - started) / steps, flush=True)


def main() -> None:
    settings, name = Settings(**json.loads(sys.argv[1])), sys.argv[3]
    size = next(size for size in ON_CPU if size.name == sys.argv[2])
    settings.apply()
    try:
        made = contestant(name, size, settings)
    except NotInstalled as error:
        print(json.dumps({"missing": str(error)}))
        return
    made.step()
    print(json.dumps({"parameters": made.parameters}), flush=True)
    serve(made.step)


if __name__ == "__main__":
    main()
