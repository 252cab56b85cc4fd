"""done.json: the result of a finished stage, written last and atomically.

{"key": ..., "step": ..., "tokens": ..., "before": {totals}, "totals": {totals}, "eval": {...} | null,
 "checkpoint": "step-...", "non_finite": ..., "peak_memory": ..., "reserved_memory": ...,
 "speed": {"parameters": ..., "flops_per_second": ...}}
"""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tfscale.files import read_object, write_json
from tfscale.totals import Totals
from tfscale.untrusted import check_file_name, from_known

DONE_FILE = "done.json"
_MAY_DIVERGE = {"largest": math.inf}


@dataclass(frozen=True)
class FinalEvaluation:
    """Validation loss of a model in several units. The loss, perplexity and bits per byte are non-finite if the model
    has diverged."""

    loss: float = field(metadata=_MAY_DIVERGE)
    """Validation loss in nats per token."""
    perplexity: float = field(metadata=_MAY_DIVERGE)
    """Perplexity per token: exp(loss)."""
    bits_per_byte: float = field(metadata=_MAY_DIVERGE)
    """Loss in bits per UTF-8 byte, which is comparable between tokenizers."""
    heldout_tokens: int | None = None
    heldout_bytes: float | None = None
    """Number of UTF-8 bytes of the validation tokens, estimated from the average over the validation split."""


@dataclass(frozen=True)
class StageSpeed:
    """Average training speed of a stage."""

    parameters: int
    flops_per_second: float
    """Model FLOP/s of all devices together, or 0 if no step was timed."""


@dataclass(frozen=True)
class Result:
    """Result of a finished stage. Fields with a default may be missing in results of imported stages and of older
    versions."""

    key: str
    step: int
    tokens: int
    before: Totals
    """Total cost of the lineage (the stage and its ancestors) when the stage began."""
    totals: Totals
    """Total cost of the lineage (the stage and its ancestors) when the stage ended."""
    eval: FinalEvaluation | None
    """Final evaluation, or None for a model that was imported without a corpus."""
    checkpoint: str
    """Name of the final checkpoint's folder."""
    non_finite: int = 0
    """Number of steps with a non-finite loss or gradient."""
    peak_memory: int | None = None
    """Peak memory of the leading rank in bytes. On CUDA, this is the memory allocated for tensors; on a CPU, it is the
    resident set size of the process."""
    reserved_memory: int | None = None
    """Peak memory in bytes that the CUDA allocator of the leading rank has reserved, or None on a CPU."""
    speed: StageSpeed | None = None

    @property
    def evaluation(self) -> FinalEvaluation:
        """Final evaluation of the stage. Raises ValueError if the stage was imported without a corpus."""
        if self.eval is None:
            raise ValueError(f"stage {self.key} was imported without a corpus and has not been evaluated")
        return self.eval


def has_result(stage_dir: Path) -> bool:
    """Return whether the folder of a stage contains done.json, that is, whether the stage is finished."""
    return (stage_dir / DONE_FILE).exists()


def write_result(stage_dir: Path, result: Result) -> None:
    """Write a result to done.json in the folder of a stage, atomically."""
    write_json(stage_dir / DONE_FILE, to_dict(result))


def to_dict(result: Result) -> dict[str, Any]:
    """Return a result as a dictionary for done.json. Fields that are None are omitted, except `eval`."""
    values = asdict(result)
    known = {name: value for name, value in values.items() if value is not None or name == "eval"}
    if result.eval is not None:
        known["eval"] = {name: value for name, value in values["eval"].items() if value is not None}
    return known


def read_result(stage_dir: Path) -> Result:
    """Return the result in done.json.

    Raises:
        ValueError: the stage is not finished, or the file is not a valid done.json. The message names the file.
    """
    path = stage_dir / DONE_FILE
    if not path.exists():
        raise ValueError(f"{path}: the file does not exist, because the stage is not finished")
    try:
        result = from_known(Result, read_object(path))
        check_file_name(result.checkpoint)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}: the file is not a valid result of a stage ({error}). Delete the file and run the command again."
        ) from error
    return result
