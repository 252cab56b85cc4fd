"""Results of a runs folder as pandas data frames, for notebooks and scripts.

    from tfscale.results import read_results

    results = read_results("runs")
    results.evaluations.plot.scatter("flops", "perplexity", c="parameters", colormap="viridis", logx=True, logy=True)

Nothing is written. Each frame is read when it is first used, so a new `Results` is needed to see later measurements.
docs/results.md describes the columns.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from tfscale.analysis.comparison import Comparison, compare_arms
from tfscale.analysis.curves import Evaluation, StageCurve, read_stage
from tfscale.analysis.formats import to_document
from tfscale.faults import UserFault, user_faults
from tfscale.plan.arms import Arm
from tfscale.plan.experiments import Recorded, recorded
from tfscale.stage.evaluations import measured, read_evaluations
from tfscale.stage.folder import Stage
from tfscale.stage.status import status_of

_WHERE = ("experiment", "arm", "title", "size", "role", "seed", "key")
"""Columns that identify the stage of a row."""
_OF_ROWS = ("experiment", "size", "arm", "title", "kind", "key", "seeds")
"""Columns that identify the arm and size of a row that is averaged over seeds."""
_OF_COSTS = (*_OF_ROWS, "status", "parameters", "loss", "perplexity", "perplexity_low", "perplexity_high",
             "bits_per_byte", "optimizer_share")  # fmt: skip


@dataclass(frozen=True)
class Results:
    """Results of the experiments in a runs folder.

    The column `experiment` of each frame contains the name of the schedule and the key of the chain. Unless the name of
    a column says otherwise, FLOPs are model FLOPs, and costs include the costs of all ancestors. Losses are in nats per
    token. Unknown values are NaN or None.
    """

    runs: Path
    experiments: tuple[Recorded, ...]
    noise_floor: float | None = None
    """Difference of losses in nats per token below which two runs count as equal, or None if it is unknown. It is used
    only to compare two arms that have one seed each."""

    @cached_property
    def stages(self) -> pd.DataFrame:
        """One row per stage of each arm, with the state, settings, final evaluation and cumulative cost of the
        stage."""
        return pd.DataFrame([{**where, **_end(stage, curve)} for where, stage, curve in self._curves])

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row per evaluation on the validation text during training."""
        rows = [
            {**where, "parameters": curve.parameters, "step": each.step, "tokens": each.tokens, **_evaluated(each)}
            for where, _, curve in self._curves
            for each in curve.evaluations
        ]
        return pd.DataFrame(rows)

    @cached_property
    def benchmarks(self) -> pd.DataFrame:
        """One row per value that `tfscale eval` measured after training."""
        rows = [
            {**where, "kind": entry["kind"], "name": entry["name"], "measure": measure, "value": value}
            for where, stage, _ in self._curves
            for entry in read_evaluations(stage.path)
            for measure, value in measured(entry).items()
        ]
        return pd.DataFrame(rows, columns=[*_WHERE, "kind", "name", "measure", "value"])

    @cached_property
    def costs(self) -> pd.DataFrame:
        """One row per arm and size, averaged over seeds, with the final perplexity, the cumulative and marginal costs,
        and the total cost of all sizes up to this one at the chain's perplexities (`family`)."""
        return self._rows.filter(regex=f"^({'|'.join(_OF_COSTS)}|(cumulative|marginal)_.*|family.*)$")

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """Comparison of each arm with the chain, one row per arm and size, with the costs at equal perplexity, the
        perplexities at equal compute, the outcome, and the verdict on the size as text. Runs that the arm shares with
        the chain, and runs that cannot be compared yet, are omitted."""
        compared = self._rows["outcome"].notna() & (self._rows["key"] != self._rows["chain_key"])
        costs = [name for name in self.costs.columns if name not in _OF_ROWS]
        return self._rows[compared].drop(columns=costs).reset_index(drop=True)

    @cached_property
    def growths(self) -> pd.DataFrame:
        """One row per growth of each chain and seed, with the losses before and after the growth and at the end of the
        stage, and the training tokens until the loss recovered."""
        rows = [{"experiment": name, **row} for name, document in self._documents for row in document["growths"]]
        return pd.DataFrame(rows)

    @cached_property
    def comparisons(self) -> dict[str, Comparison]:
        """Mapping from the name of each experiment, as in the column `experiment`, to the comparison of its arms.

        Raises:
            UserFault: files of a stage cannot be read, or the arms were not evaluated on the same text.
        """
        with user_faults():
            return {
                each.comparison.name: compare_arms(each.joined, each.name, assumed_noise=self.noise_floor)
                for each in self.experiments
            }

    @cached_property
    def _documents(self) -> list[tuple[str, dict[str, Any]]]:
        return [(name, to_document(comparison)) for name, comparison in self.comparisons.items()]

    @cached_property
    def _rows(self) -> pd.DataFrame:
        rows = []
        for name, document in self._documents:
            verdicts = dict(sentence.split(": ", 1) for sentence in document["verdicts"])
            rows += [{"experiment": name, **row, "verdict": verdicts[row["size"]]} for row in document["rows"]]
        return pd.DataFrame(rows)

    @cached_property
    def _curves(self) -> list[tuple[dict[str, Any], Stage, StageCurve]]:
        with user_faults():
            return [
                (_where(experiment, arm, stage), stage, read_stage(stage))
                for experiment in self.experiments
                for arm in experiment.joined
                for stage in arm.all_stages
            ]


def read_results(runs: str | Path = "runs", noise_floor: float | None = None) -> Results:
    """Return the results in a runs folder, or in a folder written by `tfscale compare --submit`. `noise_floor` is
    described in `Results`.

    Raises:
        UserFault: the folder contains no experiment, or a record of an experiment is damaged.
    """
    experiments = tuple(recorded(Path(runs)))
    if not experiments:
        raise UserFault([f"{runs}: contains no experiment; start one with `tfscale run`, or try another folder"])
    return Results(Path(runs), experiments, noise_floor)


def _where(experiment: Recorded, arm: Arm, stage: Stage) -> dict[str, Any]:
    """Return a mapping from the names of the columns that identify a stage to their values."""
    name, seed = experiment.comparison.name, stage.spec.seed
    return dict(zip(_WHERE, (name, arm.name, arm.title, stage.size, arm.role(stage), seed, stage.key), strict=True))


def _end(stage: Stage, curve: StageCurve) -> dict[str, Any]:
    spec = stage.spec
    return {
        "folder": stage.path.name,
        "state": status_of(stage).state,
        "family": spec.model.family,
        "parent": curve.parent,
        "recipe": curve.recipe,
        "parameters": curve.parameters,
        "tokens": spec.tokens,
        "batch_tokens": spec.batch_tokens,
        "optimizer": spec.optimizer.name,
        "lr": spec.optimizer.lr,
        **(_evaluated(curve.end) if curve.end else {}),
    }


def _evaluated(end: Evaluation) -> dict[str, Any]:
    costs = {f"total_{name}" if name == "tokens" else name: value for name, value in asdict(end.totals).items()}
    return {**costs, "loss": end.loss, "perplexity": end.perplexity, "bits_per_byte": end.bits_per_byte}
