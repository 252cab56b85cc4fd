"""Data sets and tokenizers of the Hugging Face hub.

They are fetched once, by their own client and into its cache, and only when somebody asks for it; files alone, never
code. What was fetched is written down beside the prepared corpora, with the commit and the SHA-256 of every file. From
then on nothing here speaks to anybody, and a data set that changes on the hub does not change under a finished run.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfscale.data.dataset_files import choose
from tfscale.data.errors import DataError, Unfinished
from tfscale.data.listing import Listing, TextFile
from tfscale.data.progress import Progress, Report
from tfscale.data.readers import TextPart, divide
from tfscale.data.text import digests_of, identity_of
from tfscale.untrusted import check_fields

FETCHED = ".hub"
"""Folder beside the prepared corpora."""
TOKENIZERS = {"gpt2": "openai-community/gpt2", "gpt_neox_20b": "EleutherAI/gpt-neox-20b"}
"""Short names of repositories."""
TOKENIZER_FILE = "tokenizer.json"
CARD = "README.md"
DOWNLOADS = 4
"""Files that are fetched at once."""


@dataclass(frozen=True)
class HubDataset:
    """A data set, or a part of one."""

    dataset: str
    """Repository, such as HuggingFaceFW/fineweb-edu."""
    subset: str | None = None
    """None: the only one, or the one that the data set calls its default."""
    split: str = "train"
    revision: str = "main"
    """Branch, tag or commit. It is looked up when the data set is fetched and not again."""

    def __str__(self) -> str:
        return f"{self.dataset} ({', '.join(filter(None, (self.subset, self.split)))})"


@dataclass(frozen=True)
class HubFile:
    """A file of a data set."""

    name: str
    """Path in the repository."""
    size: int
    sha256: str
    """As `tfscale.data.text.digests_of` says."""


@dataclass(frozen=True)
class HubSource:
    """The documents of a data set that was fetched. It is read, and told from others, as local files would be."""

    dataset: str
    subset: str | None
    split: str
    commit: str
    files: tuple[HubFile, ...]
    text_key: str = "text"

    def missing(self) -> list[str]:
        """Nothing: its files are needed for preparing alone."""
        return []

    def identity(self) -> dict[str, str]:
        """As of the same files in a local folder."""
        digest = identity_of([file.name for file in self.files], [file.sha256 for file in self.files])
        return {"source": "text", "sha256": digest, "text_key": self.text_key}

    def origin(self) -> dict[str, str]:
        """Which data set, at which commit."""
        return {
            "dataset": self.dataset,
            "subset": self.subset or "",
            "split": self.split,
            "commit": self.commit,
        }

    @property
    def slow(self) -> bool:
        """It is read again as fast as it would be from a copy."""
        return False

    def listing(self) -> Listing:
        """List the files of the subset's split, whether they are still in the cache or not."""
        return Listing(
            tuple(TextFile(file.name, self._path(file) or Path(file.name), file.size) for file in self.files)
        )

    def parts(self) -> list[TextPart]:
        """The documents, in parts that can be read side by side.

        Raises:
            DataError: files have been removed from the cache.
        """
        paths = []
        for file in self.files:
            path = self._path(file)
            if path is None or path.stat().st_size != file.size:
                raise DataError(
                    f"{self.dataset}: {file.name} is no longer in the hub's cache as it was fetched. `tfscale data "
                    "prepare` with the same settings fetches what is not there; remove what is of another size."
                )
            paths.append(path)
        return divide(paths, self.text_key)

    def _path(self, file: HubFile) -> Path | None:
        return _cached(self.dataset, "dataset", self.commit, file.name)


def fetched_source(hub: HubDataset, text_key: str, root: Path | None) -> HubSource | None:
    """The data set, if it was fetched; nothing is asked of the hub."""
    path = _record(hub, root)
    if path is None or not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        files = tuple(HubFile(**file) for file in values.pop("files"))
        source = HubSource(**values, files=files)
        check_fields(source)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error}). Remove it; `tfscale data prepare` makes it again.") from error
    return HubSource(source.dataset, source.subset, source.split, source.commit, files, text_key)


def fetched_tokenizer(name: str, root: Path | None) -> Path | None:
    """Its tokenizer.json, if it was fetched; nothing is asked of the hub."""
    path = root / FETCHED / f"{_slug(_repository(name))}.{TOKENIZER_FILE}" if root else None
    return path if path and path.exists() else None


def missing_source(hub: HubDataset, path: str | None) -> str:
    """What to do about a data set that was not fetched."""
    return (
        f"data set {hub} is not here yet. `tfscale data prepare` with the same settings fetches and prepares it. "
        f"{_by_hand(hub, path)}"
    )


def missing_tokenizer(name: str, path: str | None) -> str:
    """What to do about a tokenizer that was not fetched."""
    return f"tokenizer {name} is not here yet. `tfscale data prepare` with the same settings fetches it. " + (
        _tokenizer_by_hand(name, path)
    )


def fetch_source(hub: HubDataset, root: Path, path: str | None, progress: Progress) -> None:
    """Brings the files of a data set into the hub's cache, from the hub or found there, unless all of that was done.

    Raises:
        DataError: out of reach, or it has no such files; the message says how to bring them by hand.
    """
    known = fetched_source(hub, "text", root)
    commit, names = (known.commit, [file.name for file in known.files]) if known else _list(hub, path)
    with _hub_faults(f"data set {hub}", _by_hand(hub, path)):
        files = _download(hub.dataset, commit, names, progress)
    if known is not None:
        return
    progress(Report("checking what was fetched"))
    digests = digests_of(list(files))
    records = [
        HubFile(name, file.stat().st_size, digest) for name, file, digest in zip(names, files, digests, strict=True)
    ]
    record = _record(hub, root)
    assert record is not None
    source = HubSource(hub.dataset, hub.subset, hub.split, commit, tuple(records))
    content = {name: value for name, value in asdict(source).items() if name != "text_key"}
    _write(record, json.dumps(content, indent=1).encode())


def fetch_tokenizer(name: str, root: Path, path: str | None, progress: Progress) -> None:
    """Brings a tokenizer.json, from the hub's cache or the hub, unless it was brought before.

    Raises:
        DataError: out of reach; the message says how to bring it by hand.
    """
    target = root / FETCHED / f"{_slug(_repository(name))}.{TOKENIZER_FILE}"
    if target.exists():
        return
    progress(Report("fetching the tokenizer"))
    with _hub_faults(f"tokenizer {name}", _tokenizer_by_hand(name, path)):
        repository = _repository(name)
        file = _cached(repository, "model", "main", TOKENIZER_FILE)
        if file is None:
            client = _client()
            # Where the hub is out of reach this fails at once; a download would be tried for half a minute.
            commit = client.HfApi().model_info(repository, timeout=30).sha
            file = Path(client.hf_hub_download(repository, TOKENIZER_FILE, revision=commit))
    _write(target, file.read_bytes())


def _list(hub: HubDataset, path: str | None) -> tuple[str, list[str]]:
    """Commit and names of the files: as the hub says, or what is in its cache where it is out of reach."""
    client = _client()
    try:
        info = client.HfApi().dataset_info(hub.dataset, revision=hub.revision, timeout=60)
        card: Mapping[str, Any] = info.card_data.to_dict() if info.card_data else {}
        return info.sha, choose([each.rfilename for each in info.siblings], card, hub.dataset, hub.subset, hub.split)
    except DataError:
        raise
    except Exception as error:  # of several libraries; told below unless the cache helps
        card_file = client.try_to_load_from_cache(hub.dataset, CARD, repo_type="dataset", revision=hub.revision)
        with _hub_faults(f"data set {hub}", _by_hand(hub, path), error):
            folder = Path(
                client.snapshot_download(hub.dataset, repo_type="dataset", revision=hub.revision, local_files_only=True)
            )
        names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        card = client.DatasetCard.load(card_file).data.to_dict() if isinstance(card_file, str) else {}
        return folder.name, choose(names, card, hub.dataset, hub.subset, hub.split)


def _download(dataset: str, commit: str, names: Sequence[str], progress: Progress) -> list[Path]:
    """Each file's path in the hub's cache."""
    client = _client()
    cached = {name: _cached(dataset, "dataset", commit, name) for name in names}
    found = {name: path for name, path in cached.items() if path is not None}
    left = [name for name in names if name not in found]
    progress(Report(f"fetching {dataset}: {len(left)} files"))
    with ThreadPoolExecutor(DOWNLOADS) as threads:
        pending = {
            threads.submit(client.hf_hub_download, dataset, name, repo_type="dataset", revision=commit): name
            for name in left
        }
        try:
            for number, done in enumerate(as_completed(pending)):
                found[pending[done]] = Path(done.result())
                progress(Report(f"fetching {dataset}: {len(names) - len(left) + number + 1} of {len(names)} files"))
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return [found[name] for name in names]


@contextmanager
def _hub_faults(what: str, mend: str, first: Exception | None = None) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the client's, its network library's, its file transfer's
        told = first or error
        reason = " ".join(str(told).split()).rstrip(".")
        raise Unfinished(f"{what} cannot be fetched ({type(told).__name__}: {reason}). {mend}") from error


def _client() -> Any:
    """The hub's own client, told to report nothing about us."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import huggingface_hub

    return huggingface_hub


def _cached(repository: str, kind: str, revision: str, name: str) -> Path | None:
    found = _client().try_to_load_from_cache(repository, name, repo_type=kind, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _by_hand(hub: HubDataset, path: str | None) -> str:
    place = path or "DIR"
    return (
        f"Or bring the files of split {hub.split}{f' of subset {hub.subset}' if hub.subset else ''}, which the head of "
        f"its README.md names, from a machine that reaches the hub (hf download {hub.dataset} --repo-type dataset "
        f"--include PATTERN --local-dir {place}), and read them from there: data.path={place}"
    )


def _tokenizer_by_hand(name: str, path: str | None) -> str:
    folder = Path(path).parent if path else "DIR"
    return (
        f"Or bring its {TOKENIZER_FILE} from a machine that reaches the hub (hf download {_repository(name)} "
        f"{TOKENIZER_FILE} --local-dir {folder}) and say where it is: data.tokenizer_path={folder}/{TOKENIZER_FILE}"
    )


def _repository(name: str) -> str:
    return TOKENIZERS.get(name, name)


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]", "--", name)


def _record(hub: HubDataset, root: Path | None) -> Path | None:
    if root is None:
        return None
    parts = (hub.dataset, hub.subset or "", hub.split, hub.revision)
    return root / FETCHED / f"{'+'.join(map(_slug, parts))}.json"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(path)
