"""Targets for the measurements, and verdicts on whether they are reached."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.cuda.steps import H100_PEAK
from benchmarks.pattention import AS_USED, SHAPES
from benchmarks.step import GPT2, OFFICIAL, PLAIN
from tfscale.bench.contest import MATRIX_PRODUCT
from tfscale.bench.rows import Row
from tfscale.bench.sizes import ON_CUDA, TINY_1, TINY_4
from tfscale.bench.tables import Sheet
from tfscale.bench.trained import OURS, TRANSFORMER

SECONDS, SPEED, MEMORY, SHARE = "seconds", "tokens_per_second", "peak_bytes", "share_of_peak"

Figures = dict[tuple[str, str, str, str], float]
"""Figures by part, case, contestant and name of the figure."""


@dataclass(frozen=True)
class Verdict:
    """Measured value and its target."""

    part: str
    name: str
    value: float
    target: float
    at_least: bool
    """True if the target is a lower bound, and False if it is an upper bound."""

    @property
    def reached(self) -> bool:
        """True if the value reaches the target."""
        return self.value >= self.target if self.at_least else self.value <= self.target

    def to_json(self) -> dict[str, Any]:
        """Return the fields and the verdict as JSON values."""
        return {**asdict(self), "reached": self.reached}


@dataclass(frozen=True)
class Target:
    """Bound on a figure of one contestant, or on the ratio of the figures of two contestants."""

    part: str
    case: str
    words: str
    figure: str
    """Name of the figure, where `seconds` stands for the median time."""
    bound: float
    at_least: bool
    one: str
    other: str | None = None

    def judge(self, found: Figures) -> Verdict | None:
        """Return the verdict on this target, or None if a figure was not measured."""
        value = found.get((self.part, self.case, self.one, self.figure))
        below = 1.0 if self.other is None else found.get((self.part, self.case, self.other, self.figure))
        if value is None or below is None:
            return None
        return Verdict(self.part, f"{self.case}: {self.words}", value / below, self.bound, self.at_least)


def _common(official: float) -> Iterator[Target]:
    for n in (8560, 34480):
        for other in (OFFICIAL.name, AS_USED):
            yield Target("pattention", f"n = {n}", f"speed over {other}", SECONDS, official, True, other, OURS.name)
    for n in SHAPES:
        yield Target("pattention", f"n = {n}", "time over the MLP's", SECONDS, 1.1, False, OURS.name, "MLP")
    largest = f"n = {SHAPES[-1]}"
    for figure, words, bound in ((MEMORY, "memory", 0.15), (SECONDS, "time", 1.25)):
        words = f"{words} of recomputing over the plain one's"
        yield Target("pattention", largest, words, figure, bound, False, "recomputing", "plain")
    yield Target("growth", "757M to 1.4B", "speed over copying the bytes", SECONDS, 0.5, True, "copy", "growth")
    yield Target("growth", "757M to 1.4B", "memory", MEMORY, 2.0 * 2**30, False, "growth")
    yield Target("overhead", "a step", "share of a step of 100 ms", "share_of_step", 0.02, False, "together")
    yield Target("orchestration", "start", "seconds of tfscale --help", SECONDS, 0.3, False, "tfscale --help")
    yield Target("orchestration", "progressive_tiny", "training's share", "training_share", 0.8, True, "chain")


def _on_cpu() -> Iterator[Target]:
    yield from _common(official=1.2)
    for size in (TINY_1, TINY_4):
        yield Target("step", size.name, "speed over plain eager", SPEED, 1.5, True, OURS.name, PLAIN.name)
    yield Target("step", "124M", "share of the matrix-multiply peak", SHARE, 0.8, True, OURS.name)
    for other in (TRANSFORMER.name, GPT2.name):
        yield Target("step", "124M", f"tokens/s over {other}'s", SPEED, 1.0, True, OURS.name, other)
    yield Target("step", "124M", "memory over the Transformer's", MEMORY, 1.1, False, OURS.name, TRANSFORMER.name)


def _on_cuda() -> Iterator[Target]:
    yield from _common(official=2.0)
    for size in ON_CUDA:
        to_transformer, to_official = (OURS.name, TRANSFORMER.name), (OURS.name, OFFICIAL.name)
        yield Target("step", size.name, "tokens/s over Transformer's", SPEED, 0.95, True, *to_transformer)
        yield Target("step", size.name, "speed over the official order", SPEED, 2.0, True, *to_official)
        yield Target("step", size.name, "memory over the Transformer's", MEMORY, 1.1, False, *to_transformer)
    if torch.cuda.is_available() and "H100" in torch.cuda.get_device_name():
        for case, mfu in (("124M", 0.40), ("1.4B", 0.48)):
            yield Target("step", case, "Transformer's MFU by the datasheet", "mfu", mfu, True, TRANSFORMER.name)


def judge(rows: Sequence[Row], on_cuda: bool) -> list[Verdict]:
    """Return the verdicts on all targets whose figures were measured."""
    found: Figures = {}
    for row in rows:
        figures = {**row.figures, **({SECONDS: row.median} if row.seconds else {})}
        found |= {(row.part, row.case, row.name, name): value for name, value in figures.items()}
    for part, case, name, _ in [key for key in found if key[3] == SHARE]:
        peak = found[part, case, MATRIX_PRODUCT, "tflops"] * 1e12
        found[part, case, name, "mfu"] = found[part, case, name, SHARE] * peak / H100_PEAK
    targets = [*(_on_cuda() if on_cuda else _on_cpu())]
    for row in rows:
        if row.name == "loader" and ("step", row.case, OURS.name, SPEED) in found:
            found[row.part, row.case, "the step's need", SPEED] = found["step", row.case, OURS.name, SPEED]
            targets.append(
                Target("data", row.case, "loader over the step's need", SPEED, 20.0, True, "loader", "the step's need")
            )
        if row.part in ("memory", "partition"):
            targets.append(Target(row.part, row.case, "relative error of the model", "share_off", 0.1, False, row.name))
    return [verdict for target in targets if (verdict := target.judge(found))]


def targets_sheet(verdicts: Sequence[Verdict]) -> Sheet:
    """Return a table of the verdicts."""
    rows: list[tuple[str, ...]] = [
        (
            verdict.part,
            verdict.name,
            "reached" if verdict.reached else "not reached",
            f"{verdict.value:.3g}",
            f"{'≥' if verdict.at_least else '≤'} {verdict.target:.3g}",
        )
        for verdict in verdicts
    ]
    return Sheet("targets", ("part", "measurement", "result", "value", "target"), rows, left=3)
