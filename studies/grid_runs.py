"""Final losses of the runs of a study, as the file `runs.json` that its laws and predictions are computed from."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tfscale.advise.law import Measured
from tfscale.advise.laws import COMPUTE, GROWTH
from tfscale.advise.runs import read_runs
from tfscale.models.counts import parameters
from tfscale.stage.folder import Stage, is_done

RUNS = "runs.json"


@dataclass(frozen=True)
class StudyRun:
    """Run whose learning rate has decayed to zero."""

    key: str
    """Key of the last stage."""
    corpus: str
    """Fingerprint of the corpus."""
    seed: int
    parameters: int
    base_tokens: int
    """Tokens before growth, or 0 from scratch."""
    tokens: int
    """Tokens after growth, or all tokens from scratch."""
    factor: float
    """Factor by which growth multiplied the number of parameters outside the embedding, or 1 from scratch."""
    flops: float
    """Model FLOPs of the whole lineage."""
    loss: float
    """Final validation loss in nats per token."""


def finished_runs(stages: Sequence[Stage]) -> list[StudyRun]:
    """Return the runs that end at the finished branches among `stages`, in their order."""
    done = [stage for stage in stages if is_done(stage)]
    runs = {folder: read_runs(folder).runs for folder in {stage.path.parent.parent for stage in done}}
    by_key = {run.stages[-1].key: run for found in runs.values() for run in found if run.decayed}
    ends = [(stage.key, by_key[stage.key]) for stage in done if stage.key in by_key]
    return [
        StudyRun(
            key=key,
            corpus=run.first.data.fingerprint,
            seed=run.first.seed,
            parameters=parameters(run.model),
            base_tokens=run.origin.tokens if run.origin else 0,
            tokens=run.tokens,
            factor=run.factor if run.origin else 1.0,
            flops=run.flops,
            loss=run.loss,
        )
        for key, run in ends
    ]


def write_runs(path: Path, runs: Sequence[StudyRun]) -> None:
    """Write runs as JSON, one per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(asdict(run)) for run in runs)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def read_study(path: Path) -> list[StudyRun]:
    """Return the runs of a file that `write_runs` has written."""
    return [StudyRun(**run) for run in json.loads(path.read_text(encoding="utf-8"))]


def measured_growth(runs: Sequence[StudyRun]) -> Measured:
    """Return the points to which the law of growth is fitted."""
    values = np.array([(run.base_tokens, run.tokens, run.factor) for run in runs], dtype=float)
    seeds, floor_of = tuple(run.seed for run in runs), GROWTH.index("growth factor")
    return Measured(GROWTH, values, _losses(runs), seeds, has_product_term=True, floor_of=floor_of)


def measured_scratch(runs: Sequence[StudyRun]) -> Measured:
    """Return the points to which the law of one size from scratch is fitted."""
    values = np.array([[run.flops] for run in runs])
    return Measured(COMPUTE, values, _losses(runs), tuple(run.seed for run in runs))


def _losses(runs: Sequence[StudyRun]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([run.loss for run in runs])
