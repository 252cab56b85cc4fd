"""tfscale status --watch: a run seen from another shell, by what it writes."""

import time
from contextlib import suppress

from rich.console import Console

from tfscale.cli.view import LOOK_SECONDS, PlainView, Screen, moves
from tfscale.orchestrate.progress import Progress, Watch
from tfscale.plan.plan import Plan


def watch(plan: Plan, console: Console) -> None:
    """Shows a plan until all its stages are done, or until Ctrl-C."""
    with suppress(KeyboardInterrupt):  # the usual way of leaving
        _screen(plan, console) if moves(console) else _lines(plan, console)


def _screen(plan: Plan, console: Console) -> None:
    with Screen(plan, console) as screen:
        while not _is_over(screen.draw({})):
            time.sleep(LOOK_SECONDS)


def _lines(plan: Plan, console: Console) -> None:
    """A line for each thing that happens from now on."""
    watched, view = Watch(plan.stages), PlainView(plan, console)
    before = watched.look()
    for look in before.values():
        view.tell(look.stage, _words(look))
    while not _is_over(before):
        time.sleep(LOOK_SECONDS)
        now = watched.look()
        for key, look in now.items():
            for event in look.new:
                view.event(look.stage, event)
            if look.phase != before[key].phase:
                view.tell(look.stage, _words(look))
        before = now


def _words(look: Progress) -> str:
    return f"{look.phase}, {look.status.detail}" if look.status.detail else look.phase


def _is_over(looks: dict[str, Progress]) -> bool:
    return all(look.status.state == "done" for look in looks.values())
