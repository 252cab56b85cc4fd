"""Access to the model, tokenizer and files of a finished stage."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfscale.checkpoint import BrokenCheckpoint, load_model, verify
from tfscale.data.manifest import TOKENIZER_FILE
from tfscale.data.tokenizer import Tokenizer, load_tokenizer
from tfscale.faults import Fault, UserFault, user_faults
from tfscale.models.config import ModelConfig
from tfscale.models.init import first_groups_model
from tfscale.models.language_model import LanguageModel
from tfscale.models.tokenformer import number_of_groups, with_first_groups
from tfscale.stage.folder import as_it_ended
from tfscale.stage.result import FinalEvaluation, Result, read_result
from tfscale.stage.spec import CHECKPOINTS, StageSpec, read_spec


@dataclass(frozen=True)
class FinishedStage:
    """Folder, spec and result of a finished stage. If `groups` is set, the model has only its first groups of parameter
    tokens."""

    folder: Path
    spec: StageSpec
    result: Result
    groups: int | None = None
    """Number of groups of parameter tokens that the model uses, counted from the first, or None for all groups."""

    @property
    def name(self) -> str:
        """Name of the folder, followed by `--groups` and the number of groups if only the first groups are used."""
        return self.folder.name + (f" --groups {self.groups}" if self.groups else "")

    @property
    def record(self) -> dict[str, Any]:
        """Fields that identify the model in JSON output: the name of the folder as `stage` and, if only the first
        groups are used, the number of these groups as `groups`."""
        return {"stage": self.folder.name} | ({"groups": self.groups} if self.groups else {})

    @property
    def model(self) -> ModelConfig:
        """Config of the model, with only the first groups of parameter tokens if `groups` is set."""
        return with_first_groups(self.spec.model, self.groups) if self.groups else self.spec.model

    @property
    def evaluation(self) -> FinalEvaluation | None:
        """Final evaluation of the full model. None if the model was not evaluated, or if only its first groups of
        parameter tokens are used."""
        return None if self.groups else self.result.eval

    @property
    def checkpoint(self) -> Path:
        """Folder of the final checkpoint of the stage."""
        return self.folder / CHECKPOINTS / self.result.checkpoint

    @property
    def data(self) -> Path:
        """Folder of the prepared corpus of the stage, or folder of the tokenizer if the stage was imported without a
        corpus."""
        return self.folder / self.spec.run.data_dir


def open_finished(folder: Path) -> FinishedStage:
    """Read the spec and the result of a finished stage from its folder.

    Raises:
        UserFault: the folder does not contain a stage, or the stage is not finished.
    """
    with user_faults():
        return FinishedStage(folder, as_it_ended(read_spec(folder), folder), read_result(folder))


def with_groups(stages: Iterable[FinishedStage], groups: int | None) -> list[FinishedStage]:
    """Return copies of the stages with `groups` set, so that their models use only the first `groups` groups of
    parameter tokens. If `groups` is None, return the stages unchanged.

    Raises:
        UserFault: a model has not grown by groups, or `groups` is not from 1 to the number of its groups. The error
            contains the faults of all stages.
    """
    found = list(stages)
    if groups is None:
        return found
    faults = []
    for stage in found:
        most = number_of_groups(stage.spec.model)
        if most == 1:
            rule = f"must be used with a TokenFormer that has grown by groups in every layer, unlike {stage.name}"
            faults.append(Fault("--groups", groups, rule, "a grown stage of a chain with growth.tau=group"))
        elif not 1 <= groups <= most:
            faults.append(Fault("--groups", groups, f"must be from 1 to {most}, as {stage.name} has {most}", str(most)))
    if faults:
        raise UserFault(faults)
    return [replace(stage, groups=groups) for stage in found]


def model_of(stage: FinishedStage) -> LanguageModel:
    """Return the model of a stage, in float32 on the CPU.

    Raises:
        UserFault: the checkpoint is incomplete or damaged.
    """
    with user_faults(BrokenCheckpoint):
        verify(stage.checkpoint)
        whole = load_model(stage.checkpoint)
    return whole if stage.groups is None else first_groups_model(whole, stage.groups)


def tokenizer_of(stage: FinishedStage) -> Tokenizer:
    """Return the tokenizer of a stage.

    Raises:
        UserFault: the tokenizer is missing or damaged, or has more entries than the vocabulary of the model.
    """
    path = stage.data / TOKENIZER_FILE
    if stage.spec.init_from is not None and not path.exists():
        rule = "the stage was imported without a tokenizer; try `tfscale import` with --tokenizer or --data"
        raise UserFault([f"{stage.folder}: {rule}"])
    with user_faults():
        tokenizer = load_tokenizer(path)
    rows = stage.spec.model.vocab_size
    if tokenizer.vocab_size > rows:
        rule = f"must have at most {rows} entries, the vocabulary size of the model, but has {tokenizer.vocab_size}"
        raise UserFault([f"{path}: {rule}"])
    return tokenizer
