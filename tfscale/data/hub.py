"""The Hugging Face hub, and the tokenizers that are on it.

Files are fetched once, by the hub's own client and into its cache, and only by `tfscale data prepare`; only
files, never code. From then on nothing here connects to the hub.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfscale.data.errors import DataError, Unfinished
from tfscale.data.progress import Progress, Report
from tfscale.files import write_atomically

FETCHED = ".hub"
"""Folder beside the prepared corpora, for what was fetched."""
TOKENIZERS = {"gpt2": "openai-community/gpt2", "gpt_neox_20b": "EleutherAI/gpt-neox-20b"}
"""Repositories by short names."""
TOKENIZER_FILE = "tokenizer.json"


def client() -> Any:
    """Import the hub's client, with telemetry switched off."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import huggingface_hub

    return huggingface_hub


def cached(repository: str, kind: str, revision: str, name: str) -> Path | None:
    """Return a file's path in the hub's cache, or None if it is not there."""
    found = client().try_to_load_from_cache(repository, name, repo_type=kind, revision=revision)
    return Path(found) if isinstance(found, str) else None


@contextmanager
def reaching(what: str, fix: str, first: Exception | None = None) -> Iterator[None]:
    """Raise an error of the client, its network library or its file transfer as Unfinished.

    Args:
        first: the error to report, if it is not the one that is raised meanwhile.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reported = first or error
        reason = " ".join(str(reported).split()).rstrip(".")
        raise Unfinished(f"{what} cannot be fetched ({type(reported).__name__}: {reason}). {fix}") from error


def fetched_tokenizer(name: str, root: Path | None) -> Path | None:
    """Return the tokenizer.json of a tokenizer that was fetched; the hub is not asked."""
    path = _tokenizer_path(name, root) if root else None
    return path if path and path.exists() else None


def missing_tokenizer(name: str, path: str | None) -> str:
    """Return the fault for a tokenizer that has not been downloaded, with its fix."""
    return f"tokenizer {name} is not here yet. `tfscale data prepare` with the same settings fetches it. " + (
        _by_hand(name, path)
    )


def fetch_tokenizer(name: str, root: Path, path: str | None, progress: Progress) -> None:
    """Bring a tokenizer.json from the hub's cache or the hub, unless it was fetched before.

    Raises:
        DataError: out of reach; the message says how to bring it by hand.
    """
    if fetched_tokenizer(name, root):
        return
    progress(Report("fetching the tokenizer"))
    with reaching(f"tokenizer {name}", _by_hand(name, path)):
        repository = TOKENIZERS.get(name, name)
        file = cached(repository, "model", "main", TOKENIZER_FILE)
        if file is None:
            # Where the hub is out of reach this fails at once; a download would be tried for half a minute.
            commit = client().HfApi().model_info(repository, timeout=30).sha
            file = Path(client().hf_hub_download(repository, TOKENIZER_FILE, revision=commit))
    write_atomically(_tokenizer_path(name, root), file.read_bytes())


def shown(path: str | None) -> str:
    """Return a path as a user would write it in the working folder, or a placeholder."""
    if path is None:
        return "DIR"
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def slug(name: str) -> str:
    """Return a name as part of a file's name."""
    return re.sub(r"[^\w.-]", "--", name)


def _tokenizer_path(name: str, root: Path) -> Path:
    return root / FETCHED / f"{slug(TOKENIZERS.get(name, name))}.{TOKENIZER_FILE}"


def _by_hand(name: str, path: str | None) -> str:
    folder = Path(shown(path)).parent if path else "DIR"
    return (
        f"Or bring its {TOKENIZER_FILE} from a machine that reaches the hub (hf download {TOKENIZERS.get(name, name)} "
        f"{TOKENIZER_FILE} --local-dir {folder}) and say where it is: data.tokenizer_path={folder}/{TOKENIZER_FILE}"
    )
