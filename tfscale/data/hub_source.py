"""Text source that reads datasets of the Hugging Face Hub.

The commit of the dataset and the SHA-256 of every downloaded file are recorded next to the prepared corpora.
Therefore the same text is read even after the dataset has changed on the Hub.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tfscale.data.dataset_files import choose
from tfscale.data.errors import DataError
from tfscale.data.hub import FETCHED, cached, client, exists, reporting_download_errors, shown, slug
from tfscale.data.listing import Listing, TextFile
from tfscale.data.progress import Progress, Report
from tfscale.data.readers import TextPart, divide
from tfscale.data.sources import CorpusSpec, Source, needed, unused
from tfscale.data.text import TextSource, digests_of, identity_of
from tfscale.faults import Fault
from tfscale.files import read_object, write_json
from tfscale.untrusted import from_known

CARD = "README.md"
DOWNLOADS = 4
"""Maximum number of files that are downloaded at the same time."""


@dataclass(frozen=True)
class HubFile:
    """Record of a downloaded file of a dataset on the Hub."""

    name: str
    size: int
    sha256: str
    """SHA-256 of the file, or a different hash if it is a .txt file with a byte-order mark
    (`tfscale.data.text.digests_of`)."""


@dataclass(frozen=True)
class HubSource(Source):
    """A source with the documents of one split of a dataset that has been downloaded from the Hub. The downloaded files
    are identified and read like local files."""

    dataset: str
    subset: str | None
    split: str
    commit: str
    files: tuple[HubFile, ...]
    text_key: str = "text"

    @classmethod
    def check(cls, spec: CorpusSpec) -> Iterable[Fault | str]:
        example = "HuggingFaceFW/fineweb-edu"
        return chain(needed(spec, "dataset", "a repository", example), unused(spec, "options"))

    @classmethod
    def of(cls, spec: CorpusSpec, root: Path | None) -> Source:
        """Return the source for the downloaded dataset or, if `path` exists, for the file or folder at `path`."""
        if exists(spec.path):
            return TextSource.of(spec, root)
        found = fetched(spec, root)
        if found is None:
            raise DataError(
                f"dataset {_title(spec)} has not been downloaded. Run `tfscale data prepare` with the same settings to "
                f"download and prepare it. {_by_hand(spec)}"
            )
        return found

    @classmethod
    def fetch(cls, spec: CorpusSpec, root: Path, progress: Progress) -> None:
        """Download the files of the dataset that are not in the local cache of the Hub, and record the commit and the
        hashes of all files in `root`. Nothing is downloaded or recorded if the local `path` exists.

        Raises:
            DataError: the files cannot be downloaded. The message explains how to copy them manually.
        """
        if exists(spec.path):
            return
        known = fetched(spec, root)
        commit, names = (known.commit, [file.name for file in known.files]) if known else _list(spec)
        with reporting_download_errors(f"dataset {_title(spec)}", _by_hand(spec)):
            files = _download(spec.dataset, commit, names, progress)
        if known is None:
            progress(Report("verifying the download"))
            digests = digests_of(files)
            sizes = [file.stat().st_size for file in files]
            records = tuple(map(HubFile, names, sizes, digests))
            content = asdict(cls(str(spec.dataset), spec.subset, spec.split, commit, records))
            del content["text_key"]
            write_json(_record(spec, root), content)

    def identity(self) -> dict[str, str]:
        """Return values that identify the text. The values are the same for a local folder with the same files."""
        digest = identity_of([file.name for file in self.files], [file.sha256 for file in self.files])
        return {"source": "text", "sha256": digest, "text_key": self.text_key}

    def origin(self) -> dict[str, str]:
        return {"dataset": self.dataset, "subset": self.subset or "", "split": self.split, "commit": self.commit}

    def listing(self) -> Listing:
        """List the files of the split, including files that have been removed from the cache."""
        return Listing(
            tuple(TextFile(file.name, self._path(file) or Path(file.name), file.size) for file in self.files)
        )

    def parts(self) -> list[TextPart]:
        paths = []
        for file in self.files:
            path = self._path(file)
            if path is None or path.stat().st_size != file.size:
                raise DataError(
                    f"dataset {self.dataset}: {file.name} is missing from the cache of the Hub, or its size has "
                    "changed. Remove the file if it exists, and run `tfscale data prepare` with the same settings to "
                    "download it again."
                )
            paths.append(path)
        return divide(paths, self.text_key)

    def _path(self, file: HubFile) -> Path | None:
        return cached(self.dataset, "dataset", self.commit, file.name)


def fetched(spec: CorpusSpec, root: Path | None) -> HubSource | None:
    """Return the source for a downloaded dataset, or None if it has not been downloaded. No request is sent to the Hub.

    Raises:
        DataError: the record of the dataset is damaged.
    """
    if root is None or not (path := _record(spec, root)).exists():
        return None
    try:
        return from_known(HubSource, {**read_object(path), "text_key": spec.text_key})
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: the file is damaged ({error}). Remove it and run `tfscale data prepare`.") from error


def _record(spec: CorpusSpec, root: Path) -> Path:
    parts = (str(spec.dataset), spec.subset or "", spec.split, spec.revision)
    return root / FETCHED / f"{'+'.join(map(slug, parts))}.json"


def _list(spec: CorpusSpec) -> tuple[str, list[str]]:
    """Return the commit of a dataset and the paths of the files in the required split. If the Hub cannot be reached,
    its local cache is searched instead."""
    hub, dataset = client(), str(spec.dataset)
    try:
        info = hub.HfApi().dataset_info(dataset, revision=spec.revision, timeout=60)
        card: Mapping[str, Any] = info.card_data.to_dict() if info.card_data else {}
        commit, names = info.sha, [each.rfilename for each in info.siblings]
    except Exception as error:  # from several libraries; reported below unless the cache has the files
        with reporting_download_errors(f"dataset {_title(spec)}", _by_hand(spec), error):
            folder = Path(
                hub.snapshot_download(dataset, repo_type="dataset", revision=spec.revision, local_files_only=True)
            )
        files = (file for file in folder.rglob("*") if file.is_file())
        commit, names = folder.name, [file.relative_to(folder).as_posix() for file in files]
        card_file = cached(dataset, "dataset", spec.revision, CARD)
        card = hub.DatasetCard.load(card_file).data.to_dict() if card_file else {}
    return commit, choose(names, card, dataset, spec.subset, spec.split)


def _download(dataset: str | None, commit: str, names: Sequence[str], progress: Progress) -> list[Path]:
    def download(name: str) -> Path:
        return Path(client().hf_hub_download(dataset, name, repo_type="dataset", revision=commit))

    files = []
    with ThreadPoolExecutor(DOWNLOADS) as threads:
        for file in threads.map(download, names):
            files.append(file)
            progress(Report(f"downloading {dataset}: {len(files)} of {len(names)} files"))
    return files


def _title(spec: CorpusSpec) -> str:
    return f"{spec.dataset} ({', '.join(filter(None, (spec.subset, spec.split)))})"


def _by_hand(spec: CorpusSpec) -> str:
    folder = shown(spec.path)
    subset = f" of subset {spec.subset}" if spec.subset else ""
    return (
        f"Without a connection, copy the files of split {spec.split}{subset}, which the header of the dataset's "
        f"README.md lists, from a connected machine (hf download {spec.dataset} --repo-type dataset --include "
        f"PATTERN --local-dir {folder}), and set data.path={folder}"
    )
