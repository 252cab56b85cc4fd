"""What the stages' folders say: the ledger that everything else is read from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tfscale.stage.events import DONE_FILE, Event, read_events
from tfscale.stage.folder import Stage
from tfscale.stage.lock import held
from tfscale.stage.spec import CHECKPOINTS, StageSpec
from tfscale.untrusted import check_file_name

GROWTH_FILE = "growth.json"
IMPORT_FILE = "import.json"
"""Where weights came from that were taken over from elsewhere."""

State = Literal["done", "running", "preempted", "failed", "interrupted", "waiting"]
"""`preempted` stopped on request with a checkpoint; `interrupted` ended without a word (killed, power cut)."""


@dataclass(frozen=True)
class StageStatus:
    """How far a stage is."""

    state: State
    tokens: int = 0
    detail: str = ""
    """Who works on it, or why it failed."""
    last_eval: Event | None = None


def status_of(stage: Stage) -> StageStatus:
    """The status of a stage, from its folder alone."""
    return status_from(stage, read_events(stage.path))


def status_from(stage: Stage, events: Sequence[Event]) -> StageStatus:
    """The same where its events have been read already."""
    tokens = max((event["tokens"] for event in events if "tokens" in event), default=0)
    evaluation = next((event for event in reversed(events) if event["event"] == "eval"), None)
    if (stage.path / DONE_FILE).exists():
        return StageStatus("done", stage.spec.tokens, last_eval=evaluation)
    holder = held(stage.path)
    if holder is not None:
        return StageStatus("running", tokens, holder, evaluation)
    end = next((event for event in reversed(events) if event["event"] in ("end", "start")), None)
    if end is None:
        return StageStatus("waiting")
    if end["event"] == "start":
        return StageStatus("interrupted", tokens, last_eval=evaluation)
    state: State = "preempted" if end.get("reason") == "preempted" else "failed"
    return StageStatus(state, tokens, end.get("message", ""), evaluation)


def as_it_ended(spec: StageSpec, stage_dir: Path) -> StageSpec:
    """A stage's spec with the tokens that it has got, where a rule has ended it; else as it is."""
    if spec.ending is None or not (stage_dir / DONE_FILE).exists():
        return spec
    try:
        tokens = int(read_done(stage_dir)["tokens"])
    except (ValueError, TypeError, KeyError):
        return spec  # damaged; `tfscale status --verify` says how
    return replace(spec, tokens=tokens)


def is_open(stage: Stage) -> bool:
    """Whether it is still to be decided how many tokens a stage gets."""
    return stage.spec.ending is not None and not is_done(stage)


def is_done(stage: Stage) -> bool:
    """Whether nothing is left to do for a stage."""
    return (stage.path / DONE_FILE).exists()


def is_grown(stage_dir: Path) -> bool:
    """Whether the checkpoint that a stage inherits has been made, and what growth did has been looked at."""
    made = any((stage_dir / name).exists() for name in (GROWTH_FILE, IMPORT_FILE))
    return made and any((stage_dir / CHECKPOINTS).glob("step-*"))


def read_done(stage_dir: Path) -> dict[str, Any]:
    """done.json of a finished stage.

    Raises:
        ValueError: it is not there, or not what tfscale wrote.
    """
    done = _read_object(stage_dir / DONE_FILE)
    if done is None:
        raise ValueError(f"{stage_dir / DONE_FILE}: not there; the stage is not finished")
    try:
        check_file_name(done["checkpoint"])
        evaluated = done["eval"] is not None  # what was imported without a corpus was not
        numbers = [done["eval"][name] for name in ("loss", "perplexity", "bits_per_byte") if evaluated]
        numbers += [done["totals"][name] for name in ("tokens", "flops", "seconds", "device_seconds")]
        sum(numbers)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{stage_dir / DONE_FILE}: not what tfscale wrote: {error!r}") from error
    return done


def read_growth(stage_dir: Path) -> dict[str, Any] | None:
    """growth.json of a grown stage; None where nothing has grown yet.

    Raises:
        ValueError: it is not what tfscale wrote.
    """
    return _read_object(stage_dir / GROWTH_FILE)


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: not a JSON object")
    return values


def find_stage(runs: Path, name: str) -> Path:
    """The folder of a stage, named by its path, its folder's name, its key or the beginning of its key.

    Raises:
        ValueError: none or several fit; the message lists what there is.
    """
    if (Path(name) / "stage.yaml").is_file():
        return Path(name)
    folders = sorted((runs / "stages").glob("*-*/")) if runs.is_dir() else []
    fitting = [folder for folder in folders if folder.name == name or folder.name.rpartition("-")[2].startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(folder.name for folder in fitting or folders) or "none"
    what = "several stages" if fitting else "no stage"
    raise ValueError(f"{name}: {what} of that name in {runs / 'stages'}; there are: {there}")
