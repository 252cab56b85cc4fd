"""Bootstrap of training curves over seeds and validation documents.

All runs share the variation over documents, because all runs were evaluated on the same text. Runs with the same seeds
share the variation over seeds, because replicates with the same seed read their text in the same order, and some start
from the same weights. Runs with different seeds vary independently.

To vary the seeds, a bootstrap sample is the mean curve plus a random combination of deviation curves, which are the
differences between the curves of the replicates and the mean curve. With the weights of this multiplier bootstrap, the
samples of any point of a curve, and of the difference between two runs that use the same weights, follow Student's t
distribution about the mean. This is exact for normal deviations and any number of seeds, whereas drawing three runs
with replacement would give far too narrow intervals.

To vary the documents, a bootstrap sample draws blocks of the validation text with replacement. The resulting change of
a run's final loss is applied to the whole curve.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, Optional

import numpy as np
from numpy.typing import NDArray

from tfscale.analysis.curves import ArmCurve, Measure, StageCurve
from tfscale.analysis.intervals import Array
from tfscale.stage.heldout import BlockLosses

DRAWS = 20_000


@dataclass(frozen=True, eq=False)
class ReplicateCurves:
    """Curves of one size of an arm, with one curve per replicate. Replicates differ only in their seed."""

    keys: tuple[str, ...]
    log_compute: Array
    """Logarithm of compute [replicates, points] at the evaluations that all replicates have, in increasing order."""
    losses: Array
    """Validation losses [replicates, points] in nats per token."""
    blocks: tuple[BlockLosses, ...] | None
    """Losses per block of the validation text at the final evaluation of each replicate, or None if the losses are
    missing for any replicate."""
    step: float
    """Average compute of an optimizer step, in the unit of the chosen cost measure, or 0 if it is unknown. If this
    average differs between replicates, the largest average is used."""
    finished: bool
    seeds: tuple[int, ...] = ()
    """Seeds of the replicates. Unknown seeds are omitted."""
    ends: int = 1
    """Number of points at the end of each curve that are final evaluations of runs. Each of these runs has a different
    budget."""
    decayed: Optional["ReplicateCurves"] = None
    """Curves of the same replicates that combine the runs at all budgets. They consist of the evaluations of the run at
    the smallest budget, followed by the final evaluations of the runs at larger budgets. The learning rate had been
    decayed at each final evaluation. None if any replicate has only one budget or an unfinished run."""

    @property
    def size(self) -> int:
        """Number of replicates."""
        return len(self.keys)

    @property
    def mean(self) -> "Curves":
        """Mean curve of the replicates [1, points]."""
        return Curves(self.log_compute.mean(axis=0)[None], self.losses.mean(axis=0)[None])


@dataclass(frozen=True, eq=False)
class Curves:
    """Several curves of loss over compute with the same number of points. Between points, the loss is interpolated
    linearly over the logarithm of compute. It is never extrapolated."""

    log_compute: Array
    """Logarithm of compute [curves, points], in increasing order."""
    losses: Array
    """Validation losses [curves, points] in nats per token."""

    def shifted(self, losses: Array | float) -> "Curves":
        """Return the curves with all losses shifted by a number, or by one number per curve [curves, 1]."""
        return Curves(self.log_compute, self.losses + losses)

    def losses_at(self, at: Array) -> Array:
        """Return the loss of each curve [curves] at its element of `at`, which contains one logarithm of compute per
        curve [curves]. Losses outside the measured range are NaN."""
        x, last = self.log_compute, self.log_compute.shape[1] - 1
        after = np.clip((x < at[:, None]).sum(axis=1), min(1, last), last)
        losses = _interpolated(x, self.losses, after, at)
        return np.where((at < x[:, 0]) | (at > x[:, -1]), np.nan, losses)

    def first_reach(self, targets: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Return two arrays [curves]: the logarithm of the compute at which each curve first reached its target loss,
        or infinity if the curve did not reach it, and a mask that is True if the first point of the curve had already
        reached the target. In this case, the compute is an upper bound."""
        there = self.losses <= targets[:, None]
        at = _interpolated(self.losses, self.log_compute, there.argmax(axis=1), targets)
        return np.where(there.any(axis=1), at, np.inf), there[:, 0]


def _interpolated(x: Array, y: Array, after: NDArray[np.intp], at: Array) -> Array:
    """Return, for each curve, the value of y at x = `at` on the line through the points `after` - 1 and `after`, or the
    y of the first point if `after` is 0."""
    rows, before = np.arange(len(x)), np.maximum(after - 1, 0)
    x0, x1, y0, y1 = x[rows, before], x[rows, after], y[rows, before], y[rows, after]
    width = x1 - x0
    fraction = np.divide(at - x0, width, out=np.ones_like(width), where=width != 0)
    return y0 + (y1 - y0) * fraction


Source = Literal["seeds", "documents"]


@dataclass(frozen=True)
class BootstrapDraws:
    """Bootstrap samples of the curves of several runs."""

    curves: tuple[Curves, ...]
    """Sampled curves of each run, with DRAWS curves per run."""
    over: tuple[Source, ...]
    """Sources of variation in the samples (`sources`). The variation due to a missing source is unknown."""


def replicate_curves(stages: Sequence[StageCurve], measure: Measure) -> ReplicateCurves | None:
    """Return the curves of the finished replicates or, if no replicate has finished, of the replicates that have been
    evaluated. Only evaluations that all these replicates have at the same number of tokens, with a known and positive
    cost in `measure`, are points of the curves. Return None if there are no such evaluations."""
    finished = [stage for stage in stages if stage.finished]
    chosen = finished or [stage for stage in stages if stage.evaluations]
    curves = [{e.totals.tokens: (e.totals.of(measure), e.loss) for e in stage.evaluations} for stage in chosen]
    shared = [tokens for tokens in (curves[0] if curves else {}) if all(tokens in curve for curve in curves)]
    if not shared:
        return None
    values = np.array([[curve[tokens] for tokens in shared] for curve in curves], dtype=float)
    # The evaluation of a run before any training cannot be shown on a logarithmic axis.
    usable = (values[..., 0] > 0).all(axis=0) & np.isfinite(values).all(axis=(0, 2))
    if not usable.any():
        return None
    blocks = tuple(stage.blocks for stage in chosen if stage.blocks is not None)
    steps = [stage.step_size.of(measure) for stage in chosen if stage.step_size]
    return ReplicateCurves(
        keys=tuple(stage.key for stage in chosen),
        log_compute=np.log(values[:, usable, 0]),
        losses=values[:, usable, 1],
        blocks=blocks if len(blocks) == len(chosen) else None,
        step=max(steps, default=0.0),
        finished=bool(finished),
        seeds=tuple(stage.seed for stage in chosen if stage.seed is not None),
        decayed=_over_readings(chosen, measure) if all(stage.readings for stage in chosen) else None,
    )


CurvesBySize = Mapping[tuple[str, str], ReplicateCurves | None]
"""Mapping from pairs (name of an arm, size) to the curves of the replicates, or to None if `replicate_curves` finds no
points."""


def curves_by_size(arms: Sequence[ArmCurve], measure: Measure) -> CurvesBySize:
    return {(arm.name, size): replicate_curves(arm.replicates(size), measure) for arm in arms for size in arm.sizes}


def _over_readings(stages: Sequence[StageCurve], measure: Measure) -> ReplicateCurves | None:
    curves = []
    for stage in stages:
        first, *others = stage.readings
        ends = (each.end for each in others if each.end is not None)
        curves.append(replace(stage, evaluations=(*first.evaluations, *ends), readings=()))
    found = replicate_curves(curves, measure)
    return found and replace(found, ends=len(stages[0].readings))


def draw_together(*runs: ReplicateCurves) -> BootstrapDraws:
    """Draw DRAWS bootstrap samples of the mean curve of each run. All runs share the same samples of documents, and
    runs with the same seeds as the first run share its `seed_weights`. The same runs always give the same samples."""
    over, first = sources(*runs), runs[0]
    documents = None
    if first.blocks is not None and "documents" in over:
        keys = tuple(key for run in runs for key in run.keys)
        documents = _block_weights(DRAWS, len(first.blocks[0].tokens), keys).astype(float)
    curves = []
    for run in runs:
        same_seeds = run.size == first.size == len(run.seeds) and run.seeds == first.seeds
        curves.append(_draw(run, first if same_seeds else run, "seeds" in over, documents))
    return BootstrapDraws(tuple(curves), over)


def sources(*runs: ReplicateCurves) -> tuple[Source, ...]:
    """Return the sources of variation that the bootstrap can include for these runs: `seeds` if every run has several
    replicates, and `documents` if all runs were evaluated on the same blocks of the validation text."""
    blocks = {tuple(each.tokens) for run in runs for each in run.blocks or ()}
    known: dict[Source, bool] = {
        "seeds": all(run.size > 1 for run in runs),
        "documents": len(blocks) == 1 and all(run.blocks is not None for run in runs),
    }
    return tuple(source for source, is_known in known.items() if is_known)


def _draw(run: ReplicateCurves, like: ReplicateCurves, seeds: bool, documents: Array | None) -> Curves:
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
    """Return weights w [DRAWS, replicates] such that, for deviations d from a mean, w @ d divided by the standard error
    of the mean follows Student's t distribution with replicates - 1 degrees of freedom."""
    normal = stream.standard_normal((DRAWS, replicates))
    return normal / np.sqrt(replicates * stream.chisquare(replicates - 1, (DRAWS, 1)))


@lru_cache(maxsize=32)
def _block_weights(draws: int, blocks: int, keys: tuple[str, ...]) -> NDArray[np.uint16]:
    """Return the number of times that each bootstrap sample contains each block of the validation text [draws, blocks].
    The same samples are used for all runs in `keys`, because the losses of these runs on a document are correlated."""
    return seeded("documents", *keys).multinomial(blocks, [1 / blocks] * blocks, draws).astype(np.uint16)


def document_shifts(run: ReplicateCurves, weights: Array) -> Array:
    """Return the change of a run's mean final loss in nats per token in each bootstrap sample of documents [DRAWS].
    `weights` [DRAWS, blocks] is the number of times that each sample contains each block."""
    assert run.blocks is not None, "documents are drawn only if every replicate has blocks"
    tokens, losses = run.blocks[0].tokens, np.mean([each.losses for each in run.blocks], axis=0)
    return np.asarray((weights @ losses) / (weights @ tokens) - losses.sum() / tokens.sum(), dtype=float)


def perplexities(losses: Array) -> Array:
    """Return the perplexities of bootstrap samples of losses. With two seeds, the samples have heavy tails, so losses
    are limited to 700 nats, which keeps the perplexities finite and their differences defined."""
    return np.asarray(np.exp(np.minimum(losses, 700.0)), dtype=float)


def seeded(*names: str) -> np.random.Generator:
    """Return a random generator whose seed is a hash of names, such as the keys of the compared runs. Adding an arm to
    the comparison therefore does not change the results of other arms."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256("/".join(names).encode()).digest()[:8], "big"))
