"""Access to the model, tokenizer and files of a finished stage."""

from dataclasses import dataclass
from pathlib import Path

from tfscale.checkpoint import BrokenCheckpoint, load_model, verify
from tfscale.data.manifest import TOKENIZER_FILE
from tfscale.data.tokenizer import Tokenizer, load_tokenizer
from tfscale.faults import UserFault, user_faults
from tfscale.models.language_model import LanguageModel
from tfscale.stage.folder import as_it_ended
from tfscale.stage.result import Result, read_result
from tfscale.stage.spec import CHECKPOINTS, StageSpec, read_spec


@dataclass(frozen=True)
class Finished:
    """Finished stage, with the folder, the spec and the result."""

    folder: Path
    spec: StageSpec
    result: Result

    @property
    def checkpoint(self) -> Path:
        """Folder of the final checkpoint of the stage."""
        return self.folder / CHECKPOINTS / self.result.checkpoint

    @property
    def data(self) -> Path:
        """Folder of the corpus of the stage, or of the tokenizer alone."""
        return self.folder / self.spec.run.data_dir


def open_finished(folder: Path) -> Finished:
    """Open the folder of a finished stage.

    Raises:
        UserFault: the folder does not contain a stage, or the stage is not finished.
    """
    with user_faults():
        return Finished(folder, as_it_ended(read_spec(folder), folder), read_result(folder))


def model_of(stage: Finished) -> LanguageModel:
    """Return the model of a stage, in float32 on the CPU.

    Raises:
        UserFault: the checkpoint is incomplete.
    """
    with user_faults(BrokenCheckpoint):
        verify(stage.checkpoint)
        return load_model(stage.checkpoint)


def tokenizer_of(stage: Finished) -> Tokenizer:
    """Return the tokenizer of a stage.

    Raises:
        UserFault: there is no tokenizer, or the tokenizer has more entries than the model.
    """
    path = stage.data / TOKENIZER_FILE
    if stage.spec.init_from is not None and not path.exists():
        raise UserFault(
            [f"{stage.folder}: the stage was imported without a tokenizer. Import it again with --tokenizer or --data."]
        )
    with user_faults():
        tokenizer = load_tokenizer(path)
    rows = stage.spec.model.vocab_size
    if tokenizer.vocab_size > rows:
        entries = tokenizer.vocab_size
        raise UserFault([f"{path}: the tokenizer has {entries} entries, but the vocabulary of the model only {rows}"])
    return tokenizer
