"""Display of a run as a live dashboard on a terminal and as plain lines elsewhere."""

import time
from contextlib import suppress
from typing import Self

from rich.console import Console
from rich.live import Live

from tfscale.cli.dashboard import Dashboard, name_of, overview_words, speed_words
from tfscale.cli.streams import tell_loss
from tfscale.orchestrate.launchers.attempt import Phase
from tfscale.orchestrate.progress import Progress, Watch, overview
from tfscale.orchestrate.speed import finished_speeds
from tfscale.plan.plan import Plan
from tfscale.stage.ending import parent_loss
from tfscale.stage.events import Event
from tfscale.stage.folder import Stage
from tfscale.stage.growth_record import optimizer_note
from tfscale.text import count

POLL_SECONDS = 1.0
"""Time in seconds between two reads of the stages' folders."""


def make_view(plan: Plan, console: Console) -> "PlainView":
    """Return a view with a live dashboard if the console supports it, otherwise a view that prints lines."""
    return LiveView(plan, console) if moves(console) else PlainView(plan, console)


def moves(console: Console) -> bool:
    """Return True if the console can redraw output that has already been printed."""
    return console.is_terminal and not console.is_dumb_terminal


class PlainView:
    """View that prints lines about the progress of a run."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan, self._console = plan, console
        self._watch, self._known = Watch(plan.stages), finished_speeds(plan.runs)
        self._waiting: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        tell_loss()

    def say(self, message: str) -> None:
        self._console.print(message, markup=False, soft_wrap=True)

    def tell(self, stage: Stage, what: str) -> None:
        """Print a line with the name of a stage and a message."""
        self.say(f"{name_of(self._plan, stage)}: {what}")

    def started(self, stage: Stage, phase: Phase) -> None:
        if phase == "training":
            self.tell(stage, f"training {count(stage.spec.tokens)} tokens, {stage.path.name}")
        else:
            self.tell(stage, f"growing from {stage.spec.parent}")

    def queued(self, stage: Stage, job: str) -> None:
        log = stage.path / "training.log"
        self.tell(stage, f"job {job} is queued or running, with output in {log}")

    def waiting(self, stage: Stage, holder: str) -> None:
        if stage.key not in self._waiting:
            self._waiting.add(stage.key)
            self.tell(stage, f"waiting, because {stage.path.name} is in use by {holder}")

    def retrying(self, stage: Stage, reason: str) -> None:
        self.tell(stage, reason)

    def event(self, stage: Stage, event: Event) -> None:
        if event["event"] == "eval":
            self.tell(stage, self._evaluated(stage, event))
        elif event["event"] == "start" and event["step"]:
            self.tell(stage, f"continues at {count(event['step'] * stage.spec.batch_tokens)} tokens")
        elif event["event"] == "start" and (note := optimizer_note(stage.path)):
            self.tell(stage, note)
        elif event["event"] == "end" and event["reason"] == "preempted":
            self.tell(stage, f"stopped at {count(event['step'] * stage.spec.batch_tokens)} tokens, with a checkpoint")
        elif event["event"] == "ending":
            self.tell(stage, _ending(stage, event["ends_at"]))
        elif event["event"] == "broken_checkpoint":
            self.tell(stage, f"a checkpoint was incomplete and was {event['message']}")
        elif event["event"] == "non_finite":
            what = f"step {event['step']}, loss {event['loss']}, gradient norm {event['grad_norm']}"
            self.tell(stage, f"non-finite values ({what}); {event['policy']}")

    def _evaluated(self, stage: Stage, event: Event) -> str:
        looks = self._watch.look()
        facts = [
            f"{count(event['tokens'])} of {count(stage.spec.tokens)} tokens",
            f"loss {event['loss']:.4f}",
            f"perplexity {event['perplexity']:.3f}",
            *speed_words(looks[stage.key]),
        ]
        whole = overview_words(overview(self._plan, looks, self._known), len(self._plan.arms))
        return f"{', '.join(facts)}; plan {', '.join(whole)}"

    def finished(self, stage: Stage) -> None:
        self._waiting.discard(stage.key)
        self.tell(stage, "done")

    def tick(self) -> None:
        pass


def _ending(stage: Stage, tokens: int) -> str:
    trial = stage.spec.trial
    if trial is None or tokens != trial.tokens:
        return f"ends at {count(tokens)} tokens by the rule schedule.grow_when"
    above = f"more than {trial.bound:g} nats above its parent's loss of {parent_loss(stage.spec, stage.path):.4f}"
    return f"rejected at {count(tokens)} tokens by schedule.reject_growth, {above}"


class LiveView(PlainView):
    """View that shows the dashboard of a run, and prints lines about events that the dashboard does not show."""

    def __init__(self, plan: Plan, console: Console) -> None:
        super().__init__(plan, console)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._notes: dict[str, str] = {}
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()
        super().__exit__()

    def draw(self) -> dict[str, Progress]:
        """Read the stages' folders, draw the dashboard, and return the progress of each stage, by key."""
        looks = self._watch.look()
        dashboard = Dashboard(self._plan, looks, overview(self._plan, looks, self._known), self._notes)
        self._live.update(dashboard, refresh=True)
        self._drawn = time.monotonic()
        return looks

    def started(self, stage: Stage, phase: Phase) -> None:
        self._notes[stage.key] = "growing" if phase == "growing" else "starting"

    def queued(self, stage: Stage, job: str) -> None:
        super().queued(stage, job)
        self._notes[stage.key] = f"job {job}"

    def retrying(self, stage: Stage, reason: str) -> None:
        super().retrying(stage, reason)
        self._notes[stage.key] = "will be retried"

    def event(self, stage: Stage, event: Event) -> None:
        if event["event"] != "eval":
            super().event(stage, event)

    def finished(self, stage: Stage) -> None:
        self._notes.pop(stage.key, None)
        super().finished(stage)

    def tick(self) -> None:
        if time.monotonic() - self._drawn >= POLL_SECONDS:
            self.draw()


def watch(plan: Plan, console: Console) -> None:
    """Show the progress of a plan until all stages are done, or until Ctrl-C."""
    with suppress(KeyboardInterrupt):  # the usual way to exit
        _screen(plan, console) if moves(console) else _lines(plan, console)


def _screen(plan: Plan, console: Console) -> None:
    with LiveView(plan, console) as view:
        while not _is_over(view.draw()):
            time.sleep(POLL_SECONDS)


def _lines(plan: Plan, console: Console) -> None:
    watched, view = Watch(plan.stages), PlainView(plan, console)
    before = watched.look()
    for look in before.values():
        view.tell(look.stage, _words(look))
    while not _is_over(before):
        time.sleep(POLL_SECONDS)
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
