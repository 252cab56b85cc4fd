"""Dashboard that shows the lineages of a plan, the active stages, the training loss, the compute used, and the time
left."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tfscale.orchestrate.progress import Overview, Progress
from tfscale.plan.plan import Plan
from tfscale.stage.folder import Stage, lineage
from tfscale.text import count, duration, gigabytes, scientific

_SIGNS = {"done": "✔", "running": "▶", "preempted": "‖", "interrupted": "‖", "failed": "✘", "waiting": "·"}
_PLAIN_SIGNS = {"done": "+", "running": ">", "preempted": "=", "interrupted": "=", "failed": "!", "waiting": "."}
_STYLES = {"done": "green", "running": "cyan", "preempted": "yellow", "interrupted": "yellow", "failed": "bold red",
           "waiting": "dim"}  # fmt: skip
_BARS = "▁▂▃▄▅▆▇█"
_NARROW = 60
"""Width in characters below which the dashboard has a single column."""


def signs(console: Console) -> Mapping[str, str]:
    """Return a mapping from each state of a stage to the character that represents it. If the encoding of the console
    is not a Unicode encoding, the characters are ASCII."""
    return _SIGNS if console.encoding.startswith("utf") else _PLAIN_SIGNS


@dataclass(frozen=True)
class Dashboard:
    """Rich renderable that shows the progress of a plan and adapts to the width and height of the console."""

    plan: Plan
    looks: Mapping[str, Progress]
    overall: Overview
    notes: Mapping[str, str]
    """Notes on stages, by stage key. They contain facts that are not in the stages' folders, such as the job of a
    queued stage."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._lineages(console, options.max_width)
        yield from self._active(console)
        yield from self._stopped(console)
        yield from self._curve(console, options.max_width)
        yield self._total(options.max_width)

    def _lineages(self, console: Console, width: int) -> Iterator[RenderableType]:
        titled = [
            (arm.title if len(arm.seeds) == 1 else f"{arm.title}, seed {seed}", arm.of_seed(seed).all_stages)
            for arm in self.plan.arms
            for seed in arm.seeds
        ]
        if len(titled) > console.height // 3:
            states = [{self.looks[stage.key].status.state for stage in stages} for _, stages in titled]
            done, waiting = states.count({"done"}), states.count({"waiting"})
            titled = [each for each, state in zip(titled, states, strict=True) if state not in ({"done"}, {"waiting"})]
            yield Text(f"{done} lineages done, {waiting} waiting", "dim")
        if width < _NARROW:
            for title, stages in titled:
                yield from (Text(title), self._lineage(stages, console))
            return
        rows = Table.grid(padding=(0, 2, 0, 0))
        rows.add_column(no_wrap=True)
        rows.add_column()
        for title, stages in titled:
            rows.add_row(title, self._lineage(stages, console))
        yield rows

    def _lineage(self, stages: Sequence[Stage], console: Console) -> Text:
        arrow, space = (" → ", "\N{NO-BREAK SPACE}") if console.encoding.startswith("utf") else (" > ", " ")
        row, before = Text(), ""
        for stage in stages:
            look = self.looks[stage.key]
            row.append((arrow if stage.spec.parent == before else "   ") if before else "", "dim")
            share = f" {look.worked / look.work:.0%}" if 0 < look.worked < look.work else ""
            sized = f"{signs(console)[look.status.state]} {stage.size}{share}"
            row.append(sized.replace(" ", space), _STYLES[look.status.state])
            before = stage.key
        return row

    def _is_active(self, look: Progress) -> bool:
        return look.status.state == "running" or (look.stage.key in self.notes and look.status.state != "done")

    def _active(self, console: Console) -> Iterator[RenderableType]:
        for look in filter(self._is_active, self.looks.values()):
            name = f"{signs(console)['running']} {name_of(self.plan, look.stage)}"
            yield Text.assemble((name, "bold cyan"), f"  {', '.join(self._facts(look))}")

    def _facts(self, look: Progress) -> Iterator[str]:
        if look.status.state != "running" or not look.losses:
            yield self.notes.get(look.stage.key, look.phase)
            return
        yield f"{count(look.status.tokens)} of {count(look.stage.spec.tokens)} tokens"
        yield f"loss {look.losses[-1].loss:.3f}"
        if look.status.last_eval:
            yield f"perplexity {look.status.last_eval['perplexity']:.3f}"
        yield from speed_words(look)

    def _stopped(self, console: Console) -> Iterator[RenderableType]:
        for look in self.looks.values():
            state, detail = look.status.state, look.status.detail
            if state in ("failed", "preempted", "interrupted") and not self._is_active(look):
                what = f"{state} at {count(look.status.tokens)} tokens" + (f": {detail}" if detail else "")
                yield Text(f"{signs(console)[state]} {name_of(self.plan, look.stage)}  {what}", _STYLES[state])

    def _curve(self, console: Console, width: int) -> Iterator[RenderableType]:
        """Yield a line of bars for the training losses of the stages that `_focus` returns. Each bar shows the mean
        loss in one interval of model FLOPs. Means above the 90th percentile are drawn at full height. If the console
        cannot show bars, the line contains only the first and the last loss."""
        losses = [sample for look in self._focus() for sample in look.losses if isfinite(sample.loss)]
        if not losses:
            return
        before, after = f"loss {losses[0].loss:.3f} ", f" {losses[-1].loss:.3f} at {scientific(losses[-1].flops)} FLOPs"
        columns, bars = max(1, width - len(before) - len(after)), ""
        if console.encoding.startswith("utf"):
            groups = defaultdict(list)
            for sample in losses:
                groups[int(sample.flops / (losses[-1].flops or 1) * (columns - 1))].append(sample.loss)
            means = [fmean(groups[column]) for column in sorted(groups)]
            low, high = min(means), sorted(means)[int(0.9 * (len(means) - 1))]
            levels = [(min(mean, high) - low) / ((high - low) or 1) for mean in means]
            bars = "".join(_BARS[int(level * 7.99)] for level in levels)
        yield Text(f"{before}{bars or 'to'}{after}", no_wrap=True, overflow="crop")

    def _focus(self) -> list[Progress]:
        """Return the progress of one stage and, before it, of its ancestors. The stage is the first running stage with
        training losses or, if there is none, the last stage of the chain with training losses. If no such stage exists,
        the list is empty."""
        running = [look for look in self.looks.values() if look.losses and look.status.state == "running"]
        chain = [look for stage in self.plan.arms[0].all_stages if (look := self.looks[stage.key]).losses]
        focus = running[0] if running else chain[-1] if chain else None
        if focus is None:
            return []
        looks = {key: look for key, look in self.looks.items() if look.losses}
        return lineage(focus, lambda look: looks.get(look.stage.spec.parent or ""))

    def _total(self, width: int) -> RenderableType:
        words = ", ".join(overview_words(self.overall, len(self.plan.arms)))
        if width < _NARROW:
            return Text(words)
        row = Table.grid(expand=True, padding=(0, 2, 0, 0))
        row.add_column(no_wrap=True)
        row.add_column(ratio=1)
        row.add_row(words, ProgressBar(self.overall.work, self.overall.worked))
        return row


def name_of(plan: Plan, stage: Stage) -> str:
    """Return a readable name of a stage, such as `progressive 354M`. The name ends with the seed if the arm has several
    seeds."""
    arm = next(arm for arm in plan.arms if any(other.key == stage.key for other in arm.all_stages))
    return f"{arm.name} {arm.label(stage)}" + (f" seed {stage.spec.seed}" if len(arm.seeds) > 1 else "")


def speed_words(look: Progress) -> Iterator[str]:
    """Yield the speed, MFU, memory use and remaining time of a stage as text. Unknown values are omitted."""
    speed = look.tokens_per_second
    if speed:
        yield f"{count(speed)} tokens/s"
    if look.mfu is not None:
        yield f"MFU {look.mfu:.0%}"
    if look.memory is not None:
        yield gigabytes(look.memory)
    left = look.stage.spec.tokens - look.status.tokens
    if speed and left:
        yield f"{duration(left / speed)} left"


def overview_words(overall: Overview, arms: int) -> Iterator[str]:
    """Yield the compute used so far, the time left for the chain and, if there are several arms, the time left for all
    arms, as text. Unknown times are omitted. `arms` is the number of arms."""
    yield f"{scientific(overall.worked)} of {scientific(overall.work)} FLOPs ({overall.share:.0%})"
    if overall.chain_left:
        yield f"chain {duration(overall.chain_left)} left"
    if arms > 1 and overall.left:
        yield f"all {duration(overall.left)} left"
