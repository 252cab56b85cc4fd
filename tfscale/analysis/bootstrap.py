"""Bootstrap over seeds and validation documents: the curve of a run, and curves as they might have been.

Other *seeds* would have given other curves, and other *documents* another evaluation of the same models. A draw varies
both. All runs share the variation over documents, because all were evaluated on the same text. Runs with the same seeds
share the variation over seeds, because replicates of one seed read their text in the same order, and some start from
the same weights. Runs with different seeds vary independently.

Seeds: the mean curve plus a random combination of the replicates' deviations from it, whole curves at a time. Drawing
three runs with replacement would give intervals that contain the truth far too rarely. The weights of this multiplier
bootstrap make the draws of any one number of a curve follow Student's t about the mean, which is exact for normal
deviations, however few the seeds are. With the same weights for two runs, the same holds for their difference.

Documents: blocks of the final evaluation, drawn with replacement. The resulting change of a run's last loss is applied
to its whole curve.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from tfscale.analysis.curves import Measure, StageCurve
from tfscale.analysis.intervals import LEVEL, Array
from tfscale.stage.heldout import BlockLosses

DRAWS = 4000


@dataclass(frozen=True, eq=False)
class Sample:
    """One size of an arm: the curves of its replicates, which differ in their seed alone."""

    keys: tuple[str, ...]
    log_compute: Array
    """[replicates, points], in order of compute; the evaluations that all replicates have."""
    losses: Array
    """[replicates, points], nats per token."""
    blocks: tuple[BlockLosses, ...] | None
    """Validation losses by document, per replicate; None where some replicate has none."""
    step: float
    """Compute of one optimizer step; 0 if it is not known."""
    finished: bool
    seeds: tuple[int, ...] = ()
    """Seed of each replicate; empty if they are not known."""

    @property
    def size(self) -> int:
        """Number of replicates."""
        return len(self.keys)

    @property
    def mean(self) -> "Curves":
        """The mean curve, as a stack of one."""
        return Curves(self.log_compute.mean(axis=0)[None], self.losses.mean(axis=0)[None])


@dataclass(frozen=True, eq=False)
class Curves:
    """A stack of curves."""

    log_compute: Array
    """[curves, points], in order of compute."""
    losses: Array
    """[curves, points], nats per token."""

    def shifted(self, losses: Array | float) -> "Curves":
        """Return the curves with a number, or with [curves, 1] numbers, added to all losses."""
        return Curves(self.log_compute, self.losses + losses)


Source = Literal["seeds", "documents"]


@dataclass(frozen=True)
class Drawn:
    """Bootstrap draws of several runs."""

    curves: tuple[Curves, ...]
    """One stack of DRAWS curves per run."""
    over: tuple[Source, ...]
    """Sources of variation that were drawn. Seeds are missing if some run has only one, documents if some run was not
    evaluated document by document; what they leave open is then not known."""


def sample(stages: Sequence[StageCurve], measure: Measure) -> Sample | None:
    """Return the replicates that have finished or, if none has, those that have begun. None if nothing was measured
    whose cost is known in this measure."""
    finished = [stage for stage in stages if stage.finished]
    chosen = finished or [stage for stage in stages if stage.evaluations]
    curves = [{e.totals.tokens: (e.totals.of(measure), e.loss) for e in stage.evaluations} for stage in chosen]
    shared = [tokens for tokens in (curves[0] if curves else {}) if all(tokens in curve for curve in curves)]
    if not shared:
        return None
    values = np.array([[curve[tokens] for tokens in shared] for curve in curves], dtype=float)
    # A run's evaluation before any training has no place on a logarithmic axis.
    usable = (values[..., 0] > 0).all(axis=0) & np.isfinite(values).all(axis=(0, 2))
    if not usable.any():
        return None
    blocks = tuple(stage.blocks for stage in chosen if stage.blocks is not None)
    steps = [stage.step_size.of(measure) for stage in chosen if stage.step_size]
    return Sample(
        keys=tuple(stage.key for stage in chosen),
        log_compute=np.log(values[:, usable, 0]),
        losses=values[:, usable, 1],
        blocks=blocks if len(blocks) == len(chosen) else None,
        step=max(steps, default=0.0),
        finished=bool(finished),
        seeds=tuple(stage.seed for stage in chosen if stage.seed is not None),
    )


def draw_together(*runs: Sample) -> Drawn:
    """Draw DRAWS curves per run; the same runs always give the same curves."""
    seeds = all(run.size > 1 for run in runs)
    documents = _document_weights(runs)
    known: dict[Source, bool] = {"seeds": seeds, "documents": documents is not None}
    over = tuple(source for source, is_known in known.items() if is_known)
    first = runs[0]
    return Drawn(tuple(_draw(run, first if _go_together(run, first) else run, seeds, documents) for run in runs), over)


def _go_together(run: Sample, other: Sample) -> bool:
    return run.size == other.size == len(run.seeds) and run.seeds == other.seeds


def _draw(run: Sample, like: Sample, seeds: bool, documents: Array | None) -> Curves:
    curves = run.mean
    if seeds:
        weights = seed_weights(run.size, seeded(*like.keys))
        curves = Curves(
            curves.log_compute + weights @ (run.log_compute - curves.log_compute),
            curves.losses + weights @ (run.losses - curves.losses),
        )
    else:
        curves = Curves(np.repeat(curves.log_compute, DRAWS, axis=0), np.repeat(curves.losses, DRAWS, axis=0))
    return curves if documents is None else curves.shifted(document_shifts(run, documents)[:, None])


def seed_weights(replicates: int, stream: np.random.Generator) -> Array:
    """Return weights [DRAWS, replicates] for deviations d from a mean, so that w @ d is Student's t with replicates - 1
    degrees of freedom, times the standard error of that mean."""
    normal = stream.standard_normal((DRAWS, replicates))
    return normal / np.sqrt(replicates * stream.chisquare(replicates - 1, (DRAWS, 1)))


def _document_weights(runs: Sequence[Sample]) -> Array | None:
    """Return how often each draw has each block of the validation text [DRAWS, blocks]. It is the same for all runs,
    whose losses on a document go together. None if some run was not evaluated in blocks, or not in the same blocks."""
    tokens = {tuple(each.tokens) for run in runs for each in run.blocks or ()}
    if len(tokens) != 1 or any(run.blocks is None for run in runs):
        return None
    return _block_weights(len(tokens.pop()))


@cache
def _block_weights(blocks: int) -> Array:
    return seeded("documents", str(blocks)).multinomial(blocks, [1 / blocks] * blocks, DRAWS).astype(float)


def document_shifts(run: Sample, weights: Array) -> Array:
    """Return what drawing documents adds to the run's final loss [DRAWS], on average over its replicates."""
    assert run.blocks is not None, "documents are drawn where every replicate has its blocks"
    drawn = [(weights @ each.losses) / (weights @ each.tokens) for each in run.blocks]
    whole = [each.losses.sum() / each.tokens.sum() for each in run.blocks]
    return np.asarray(np.mean(drawn, axis=0) - np.mean(whole), dtype=float)


def seeded(*names: str) -> np.random.Generator:
    """Return the random generator of a name. The name is that of what is drawn, so that adding an arm to the comparison
    does not change the results."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256("/".join(names).encode()).digest()[:8], "big"))


@dataclass(frozen=True)
class NoiseFloor:
    """The difference in final loss below which two runs count as equal."""

    nats: float
    """Nats per token."""
    source: Literal["seeds", "assumed"]
    """`seeds`: measured on runs that differ only in their seed. `assumed`: set in the configuration."""


def noise_floor(samples: Iterable[Sample], assumed: float | None) -> NoiseFloor | None:
    """Return the noise floor, pooled over all runs that have several seeds, or else the assumed one. None if it is not
    known.

    From seeds it is the difference that two runs which differ in their seed alone stay below LEVEL of the time: s of
    the pooled final losses, times sqrt(2), times the quantile of Student's t.
    """
    from scipy.special import stdtrit

    several = {run.keys: run.losses[:, -1] for run in samples if run.finished and run.size > 1}
    freedom = sum(len(losses) - 1 for losses in several.values())
    if not freedom:
        return None if assumed is None else NoiseFloor(assumed, "assumed")
    variance = sum(float(((losses - losses.mean()) ** 2).sum()) for losses in several.values()) / freedom
    quantile = float(stdtrit(freedom, 1 - (1 - LEVEL) / 2))
    return NoiseFloor(float(np.sqrt(variance)) * math.sqrt(2) * quantile, "seeds")
