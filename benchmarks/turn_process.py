"""Process for contestants that must run with the default allocator settings, as their users run them."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import ParamSpec

from tfscale.training.allocator import allocator

P = ParamSpec("P")
Turn = Callable[[], float]


class TurnProcess:
    """Process in which a contestant takes its turns, without tfscale's allocator settings.

    Args:
        prepare: function that is called in the process and returns the function that takes a turn. It must be defined
            at the top level of a module.
    """

    def __init__(self, prepare: Callable[P, Turn], *given: P.args, **named: P.kwargs) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        with _without(allocator()):  # the process starts now
            prepared = self._pool.submit(_prepare, prepare, *given, **named)
        prepared.result()

    def turn(self) -> float:
        """Take a turn and return the time per run in seconds."""
        return self._pool.submit(_take_turn).result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


_turns: list[Turn] = []
"""Function that takes a turn. It is set in the child process only."""


def _prepare(prepare: Callable[P, Turn], /, *given: P.args, **named: P.kwargs) -> None:
    _turns.append(prepare(*given, **named))


def _take_turn() -> float:
    [turn] = _turns
    return turn()


@contextmanager
def _without(variables: Iterable[str]) -> Iterator[None]:
    removed = {name: os.environ.pop(name) for name in variables if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(removed)
