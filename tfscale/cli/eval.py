"""The command `tfscale eval`, which evaluates finished stages on validation tokens, text or zero-shot tasks."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tfscale.cli.common import Common
from tfscale.cli.console import FittedTable, answer, console, say
from tfscale.cli.execute import catch_up, tracker_of
from tfscale.config.compose import runs_dir
from tfscale.config.schema import Experiment
from tfscale.faults import Fault, UserFault
from tfscale.interop.finished import FinishedStage, model_of, tokenizer_of, with_groups
from tfscale.interop.perplexity import EncodedText, Score, encode_text, score_heldout, score_text
from tfscale.models.language_model import LanguageModel
from tfscale.plan.experiments import recorded
from tfscale.stage.evaluations import EVALUATIONS_FILE, add_evaluation

PAPER = "paper"
"""Value of --tasks that selects the six zero-shot tasks of the TokenFormer paper."""


def evaluate(
    common: Common,
    names: str,
    texts: Sequence[Path],
    stride: int | None,
    tasks: str,
    task_path: Path | None,
    limit: int | None,
    groups: int | None,
) -> int:
    """Evaluate stages, print the results, and return the exit code. The stages are evaluated on the files and folders
    `texts`, on zero-shot tasks, or on both; if neither is given, on the validation tokens. If `groups` is None, the
    results are also recorded with the training costs of the stages and sent to the tracker. Results of the first
    `groups` groups of parameter tokens are not recorded, because the records of a stage describe the whole model."""
    stages = with_groups(common.finished_stages(names), groups)
    experiment = common.compose()
    for stage in stages:
        context = stage.spec.model.context
        if stride is not None and stride > context:
            raise UserFault([f"--stride {stride}: must be at most {context}, the context of {stage.folder.name}"])
    encoded = _encoded(stages, texts, experiment.data.max_unknown)
    say(*dict.fromkeys(note for each in encoded for text in each for note in text.notes), prefix="warning: ")
    made: list[dict[str, Any]] = []
    for stage, stage_texts in zip(stages, encoded, strict=True):
        model = model_of(stage)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        if texts or not tasks:
            made += _texts(stage, model, stage_texts, stride or stage.spec.model.context)
        if tasks:
            made += _tasks(stage, model, tasks, task_path, limit)
        if groups is None:
            say(str(stage.folder / EVALUATIONS_FILE))
    if groups is None:
        _track(stages, experiment)
    if common.as_json:
        answer(made)
    return 0


def _track(stages: Sequence[FinishedStage], experiment: Experiment) -> None:
    tracker, folders = tracker_of(experiment), {stage.folder.resolve() for stage in stages}
    if tracker is None:
        return
    for each in recorded(runs_dir(experiment)):
        if any(stage.path.resolve() in folders for arm in each.arms for stage in arm.all_stages):
            catch_up(each, tracker)


def _encoded(stages: Sequence[FinishedStage], texts: Sequence[Path], max_unknown: float) -> list[list[EncodedText]]:
    """Return a list with the encoded texts for each stage. A text is encoded only once for all stages with the same
    tokenizer. Raise UserFault with all faults of the texts."""
    if not texts:
        return [[] for _ in stages]
    tokenizers = [tokenizer_of(stage) for stage in stages]
    made: dict[str, list[EncodedText]] = {each.sha256: [] for each in tokenizers}
    faults: list[Fault] = []
    for tokenizer in {each.sha256: each for each in tokenizers}.values():
        for path in dict.fromkeys(texts):
            try:
                made[tokenizer.sha256].append(encode_text(path, tokenizer, max_unknown))
            except UserFault as fault:
                faults += fault.faults
    if faults:
        raise UserFault(list(dict.fromkeys(faults)))
    return [made[each.sha256] for each in tokenizers]


def _texts(
    stage: FinishedStage, model: LanguageModel, texts: Sequence[EncodedText], stride: int
) -> list[dict[str, Any]]:
    made = []
    columns = ["perplexity", "bits/byte", "nats/token", "tokens", "window", "stride"]
    rows = FittedTable(stage.name, ["text"], columns, caption="computed in float32")
    for text in texts:
        with console.status(f"{stage.name}: {text.path}"):
            score = score_text(text, model, stride)
        made.append(_entry(text.path.name, text.sha256, score) | {"unknown_tokens": text.unknown})
        rows.add_row(text.path.name, *_cells(score))
    if not texts:
        with console.status(f"{stage.name}: validation tokens"):
            score = score_heldout(stage, model, stride)
        made.append(_entry("heldout", stage.spec.data.fingerprint, score))
        rows.add_row("validation", *_cells(score))
    console.print(rows)
    return _kept(stage, made)


def _kept(stage: FinishedStage, made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Record the evaluations of a stage, unless only its first groups of parameter tokens were evaluated. Return the
    evaluations together with the fields that identify the stage."""
    for entry in made if stage.groups is None else ():
        add_evaluation(stage.folder, stage.result.totals, entry)
    return [{**stage.record, **entry} for entry in made]


def _entry(name: str, digest: str, score: Score) -> dict[str, Any]:
    measured = {"perplexity": score.perplexity, "bits_per_byte": score.bits_per_byte, **vars(score)}
    return {"kind": "text", "name": name, "sha256": digest, **measured}


def _cells(score: Score) -> list[str]:
    measured = [f"{score.perplexity:.3f}", f"{score.bits_per_byte:.4f}", f"{score.loss:.4f}"]
    return [*measured, f"{score.tokens:,}", str(score.context), str(score.stride)]


def _tasks(
    stage: FinishedStage, model: LanguageModel, tasks: str, task_path: Path | None, limit: int | None
) -> list[dict[str, Any]]:
    try:
        from tfscale.interop import harness
    except ImportError as error:
        what = f"requires lm-evaluation-harness ({error})"
        raise UserFault([f"--tasks: {what}; try pip install 'tfscale[eval]'"]) from error
    names = harness.PAPER if tasks == PAPER else tuple(tasks.split(","))
    made = []
    columns = ["value", "± stderr", "samples"]
    rows = FittedTable(stage.name, ["task", "metric"], columns, caption="zero-shot, computed in float32")
    for result in harness.run_tasks(model, tokenizer_of(stage), names, task_path, limit):
        measured = {"samples": result.samples, "shots": 0, "metrics": result.metrics}
        about = {"version": result.version, "harness": version("lm-eval")}
        made.append({"kind": "task", "name": result.name, **about, **measured})
        for metric, value in result.metrics.items():
            if not metric.endswith("_stderr"):
                error_of = result.metrics.get(f"{metric}_stderr")
                spread = "" if error_of is None else f"{error_of:.4f}"
                rows.add_row(result.name, metric, f"{value:.4f}", spread, f"{result.samples:,}")
    console.print(rows)
    return _kept(stage, made)
