"""What a run shows: a live view on a terminal, plain lines anywhere else."""

import time
from abc import abstractmethod
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from tfscale.cli.experiment import tokens, work
from tfscale.models.counts import flops
from tfscale.schedule.arms import ArmStage
from tfscale.schedule.launchers.attempt import Phase
from tfscale.schedule.orchestrator import View
from tfscale.schedule.plan import Plan
from tfscale.schedule.predict import duration
from tfscale.training.events import Event


class RunView(View, Protocol):
    """A view that also passes on messages, for as long as it is entered."""

    @abstractmethod
    def say(self, message: str) -> None:
        """A line for people."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, *exception: object) -> None: ...


def make_view(plan: Plan, console: Console) -> RunView:
    """The view that suits where the output goes."""
    return LiveView(plan, console) if console.is_terminal else PlainView(plan, console)


def name_of(plan: Plan, stage: ArmStage) -> str:
    """Arm and size, such as `progressive 354M`."""
    arm = next(arm for arm in plan.arms if any(other.key == stage.key for other in arm.stages))
    return f"{arm.name} {stage.size}"


class PlainView:
    """One line for each thing worth knowing."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan, self._console = plan, console
        self._waiting: set[str] = set()
        self._speed: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def say(self, message: str) -> None:
        self._console.print(message, markup=False, soft_wrap=True)

    def started(self, stage: ArmStage, phase: Phase) -> None:
        if phase == "training":
            self.say(f"{name_of(self._plan, stage)}: training {tokens(stage.spec.tokens)} tokens, {stage.path.name}")
        else:
            self.say(f"{name_of(self._plan, stage)}: growing out of {stage.spec.parent}")

    def queued(self, stage: ArmStage, job: str) -> None:
        log = stage.path / "training.log"
        self.say(f"{name_of(self._plan, stage)}: job {job} is in the queue or runs; its output goes to {log}")

    def waiting(self, stage: ArmStage, holder: str) -> None:
        if stage.key not in self._waiting:
            self._waiting.add(stage.key)
            self.say(f"{name_of(self._plan, stage)}: waiting, {stage.path.name} is being worked on by {holder}")

    def retrying(self, stage: ArmStage, reason: str) -> None:
        self.say(f"{name_of(self._plan, stage)}: {reason}")

    def event(self, stage: ArmStage, event: Event) -> None:
        if event["event"] == "train" and event["tokens_per_second"]:
            self._speed[stage.key] = event["tokens_per_second"]
        elif event["event"] == "eval":
            self.say(f"{name_of(self._plan, stage)}: {describe(stage, event, self._speed.get(stage.key))}")
        elif event["event"] == "start" and event["step"]:
            self.say(
                f"{name_of(self._plan, stage)}: goes on at {tokens(event['step'] * stage.spec.batch_tokens)} tokens"
            )
        elif event["event"] == "end" and event["reason"] == "preempted":
            done = tokens(event["step"] * stage.spec.batch_tokens)
            self.say(f"{name_of(self._plan, stage)}: stopped at {done} tokens, with a checkpoint")
        elif event["event"] == "broken_checkpoint":
            self.say(f"{name_of(self._plan, stage)}: a checkpoint was not whole and was {event['message']}")
        elif event["event"] == "non_finite":
            what = f"step {event['step']}, loss {event['loss']}, gradient norm {event['grad_norm']}"
            self.say(f"{name_of(self._plan, stage)}: a number that is none ({what}); {event['policy']}")

    def finished(self, stage: ArmStage) -> None:
        self._waiting.discard(stage.key)
        self.say(f"{name_of(self._plan, stage)}: done")

    def tick(self) -> None:
        pass


def describe(stage: ArmStage, event: Event, speed: float | None) -> str:
    """An evaluation in words: tokens, loss, perplexity, speed, time left, cumulative compute."""
    parts = [
        f"{tokens(event['tokens'])} of {tokens(stage.spec.tokens)} tokens",
        f"loss {event['loss']:.4f}",
        f"perplexity {event['perplexity']:.3f}",
        f"{work(event['total_flops'])} FLOPs in all",
    ]
    if speed:
        left = (stage.spec.tokens - event["tokens"]) / speed
        parts += [f"{tokens(speed)} tokens/s", f"{duration(left)} left"]
    return ", ".join(parts)


class LiveView:
    """A bar for the whole plan and one for each stage that runs."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan, self._console = plan, console
        self._plain = PlainView(plan, console)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}
        self._perplexity: dict[str, float] = {}
        self._work = {stage.key: stage.spec.tokens * flops(stage.spec.model).training for stage in plan.stages}
        self._whole = self._progress.add_task("whole plan", total=sum(self._work.values()), note="")
        self._began = time.monotonic()
        self._before = 0.0

    def __enter__(self) -> Self:
        from tfscale.schedule.ledger import status_of

        for stage in self._plan.stages:
            self._done[stage.key] = status_of(stage).tokens
        self._before = self._worked()
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def say(self, message: str) -> None:
        self._plain.say(message)

    def started(self, stage: ArmStage, phase: Phase) -> None:
        self._show(stage, "growing" if phase == "growing" else "starting")

    def queued(self, stage: ArmStage, job: str) -> None:
        self._plain.queued(stage, job)
        self._show(stage, f"job {job}")

    def _show(self, stage: ArmStage, note: str) -> None:
        self._drop(stage)
        self._tasks[stage.key] = self._progress.add_task(
            name_of(self._plan, stage), total=stage.spec.tokens, completed=self._done[stage.key], note=note
        )

    def waiting(self, stage: ArmStage, holder: str) -> None:
        self._plain.waiting(stage, holder)

    def retrying(self, stage: ArmStage, reason: str) -> None:
        self._plain.retrying(stage, reason)

    def event(self, stage: ArmStage, event: Event) -> None:
        if event["event"] == "eval":
            self._perplexity[stage.key] = event["perplexity"]
        if event["event"] in ("train", "eval"):
            self._done[stage.key] = event["tokens"]
        if event["event"] == "train" and event["tokens_per_second"]:
            speed = event["tokens_per_second"]
            held_out = self._perplexity.get(stage.key)
            note = f"loss {event['loss']:.3f}"
            note += f"  ppl {held_out:.3f}" if held_out else ""
            note += f"  {tokens(speed)} tok/s  {duration((stage.spec.tokens - event['tokens']) / speed)} left"
            self._progress.update(self._tasks[stage.key], completed=event["tokens"], note=note)
        elif event["event"] in ("start", "end", "broken_checkpoint", "non_finite"):
            self._plain.event(stage, event)

    def finished(self, stage: ArmStage) -> None:
        self._done[stage.key] = stage.spec.tokens
        self._drop(stage)
        held_out = self._perplexity.get(stage.key)
        self.say(f"{name_of(self._plan, stage)}: done" + (f", perplexity {held_out:.3f}" if held_out else ""))

    def tick(self) -> None:
        worked = self._worked()
        rate = (worked - self._before) / (time.monotonic() - self._began)
        left = (sum(self._work.values()) - worked) / rate if rate else 0
        note = f"{work(worked)} FLOPs" + (f"  {duration(left)} left" if left else "")
        self._progress.update(self._whole, completed=worked, note=note)

    def _worked(self) -> float:
        return sum(
            self._done.get(stage.key, 0) / stage.spec.tokens * self._work[stage.key] for stage in self._plan.stages
        )

    def _drop(self, stage: ArmStage) -> None:
        task = self._tasks.pop(stage.key, None)
        if task is not None:
            self._progress.remove_task(task)
