"""Access to the Hugging Face Hub and its tokenizers.

Only `tfscale data prepare` downloads files. The client of the Hub downloads each file once and stores it in its local
cache. No code is downloaded. Prepared corpora are used without a connection to the Hub.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfscale.data.errors import DataError, Unfinished
from tfscale.data.manifest import TOKENIZER_FILE
from tfscale.data.progress import Progress, Report
from tfscale.files import write_atomically

FETCHED = ".hub"
"""Name of the folder, next to the prepared corpora, that contains downloaded tokenizers and records of downloaded
datasets."""
TOKENIZERS = {"gpt2": "openai-community/gpt2", "gpt_neox_20b": "EleutherAI/gpt-neox-20b"}
"""Mapping from the short name of a tokenizer to the name of its repository on the Hub."""


def client() -> Any:
    """Import and return `huggingface_hub`, with telemetry and progress bars disabled."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import huggingface_hub

    return huggingface_hub


def cached(repository: str, kind: str, revision: str, name: str) -> Path | None:
    """Return the path of a file in the local cache of the Hub, or None if the cache does not contain the file. No
    request is sent to the Hub."""
    found = client().try_to_load_from_cache(repository, name, repo_type=kind, revision=revision)
    return Path(found) if isinstance(found, str) else None


@contextmanager
def reporting_download_errors(what: str, fix: str, first: Exception | None = None) -> Iterator[None]:
    """Return a context manager that converts all errors except DataError to Unfinished, because the Hub client and its
    network libraries raise errors of many types. The message states that `what` could not be downloaded, and ends with
    `fix`.

    Args:
        first: error to report instead of the error that is raised in the `with` block.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reported = first or error
        reason = " ".join(str(reported).split()).rstrip(".")
        raise Unfinished(f"{what} could not be downloaded ({type(reported).__name__}: {reason}). {fix}") from error


def fetched_tokenizer(name: str, root: Path | None) -> Path | None:
    """Return the path of the tokenizer.json of a tokenizer, or None if the file has not been downloaded. No request is
    sent to the Hub."""
    path = _tokenizer_path(name, root) if root else None
    return path if path and path.exists() else None


def missing_tokenizer(name: str, path: str | None) -> str:
    """Return an error message for a tokenizer that has not been downloaded. The message explains how to download it."""
    return (
        f"tokenizer {name} has not been downloaded. Run `tfscale data prepare` with the same settings to download it. "
        f"{_by_hand(name, path)}"
    )


def fetch_tokenizer(name: str, root: Path, path: str | None, progress: Progress) -> None:
    """Store a copy of a tokenizer.json in a folder of `root`, unless the copy exists. The file is taken from the local
    cache of the Hub, or downloaded if the cache does not contain it.

    Args:
        path: setting `data.tokenizer_path`. The error message suggests its folder as the target of a manual copy.

    Raises:
        DataError: the tokenizer cannot be downloaded. The message explains how to copy the file manually.
    """
    if fetched_tokenizer(name, root):
        return
    progress(Report("downloading the tokenizer"))
    with reporting_download_errors(f"tokenizer {name}", _by_hand(name, path)):
        repository = TOKENIZERS.get(name, name)
        file = cached(repository, "model", "main", TOKENIZER_FILE)
        if file is None:
            # Without a connection, this fails immediately, while a download would be retried for half a minute.
            commit = client().HfApi().model_info(repository, timeout=30).sha
            file = Path(client().hf_hub_download(repository, TOKENIZER_FILE, revision=commit))
    write_atomically(_tokenizer_path(name, root), file.read_bytes())


def exists(path: str | None) -> bool:
    """Return True if a path is set and exists."""
    return path is not None and Path(path).exists()


def shown(path: str | None) -> str:
    """Return a path in the form that messages use. An absolute path inside the working directory becomes relative to
    this directory, and None becomes the placeholder `DIR`."""
    if path is None:
        return "DIR"
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def slug(name: str) -> str:
    """Return `name` with each character that may be invalid in a file name replaced by `--`."""
    return re.sub(r"[^\w.-]", "--", name)


def _tokenizer_path(name: str, root: Path) -> Path:
    return root / FETCHED / f"{slug(TOKENIZERS.get(name, name))}.{TOKENIZER_FILE}"


def _by_hand(name: str, path: str | None) -> str:
    folder = Path(shown(path)).parent if path else "DIR"
    return (
        f"Without a connection, copy {TOKENIZER_FILE} from a connected machine (hf download "
        f"{TOKENIZERS.get(name, name)} {TOKENIZER_FILE} --local-dir {folder}) and set "
        f"data.tokenizer_path={folder}/{TOKENIZER_FILE}"
    )
