"""Functions that select the files of one subset and split of a Hub dataset, based on the dataset card or on file names.

The rules are those that the Hub documents for datasets without a loading script. The YAML header of the card lists
subsets under `configs`, each with its `data_files`. If there are no `configs`, a subset is a folder, and a word in the
path of a file indicates the split of the file.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tfscale.data.errors import DataError
from tfscale.data.listing import ALLOWED, kind_of, why_hidden

WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""For each split, the words that indicate the split in the path of a file."""
_OF = re.compile(r"(.*?)-?(\d{5,})-of-(\d{5,})(.*)")


def choose(names: Sequence[str], card: Mapping[str, Any], dataset: str, subset: str | None, split: str) -> list[str]:
    """Return the sorted paths of the text files that belong to one split of one subset of a dataset.

    Args:
        names: paths of all files in the repository.
        card: YAML header of the README.md in the repository.
        subset: name of the subset, or None for the default subset. If there are no `configs`, None means all folders.

    Raises:
        DataError: the subset or split does not exist, has no files in a supported format, or lacks some of its files,
            or the card contains an invalid file pattern.
    """
    configs = [config for config in card.get("configs") or [] if isinstance(config, dict) and "config_name" in config]
    if configs:
        chosen = _of_config(names, _config(configs, dataset, subset), dataset, split)
    else:
        chosen = _of_names(names, dataset, subset, split)
    texts = sorted(name for name in chosen if _is_text(name))
    if not texts:
        kinds = ", ".join(sorted({name.rpartition("/")[2].partition(".")[2] for name in chosen})) or "no files"
        raise DataError(
            f"dataset {dataset}: the files of subset={subset}, split={split} cannot be read (found: {kinds}). "
            f"Supported formats: {ALLOWED}. Try the Hub's copy in Parquet: data.revision=refs/convert/parquet"
        )
    _check_whole(texts, dataset)
    return texts


def _is_text(name: str) -> bool:
    return kind_of(name) is not None and not any(map(why_hidden, name.split("/")))


def _config(configs: Sequence[Mapping[str, Any]], dataset: str, subset: str | None) -> Mapping[str, Any]:
    by_name = {str(config["config_name"]): config for config in configs}
    if subset is not None:
        chosen = [config for name, config in by_name.items() if name == subset]
    else:
        chosen = [config for config in configs if config.get("default")]
        chosen = chosen or [config for name, config in by_name.items() if name == "default" or len(by_name) == 1]
    if chosen:
        return chosen[0]
    subsets = ", ".join(sorted(by_name))
    raise DataError(f"data.subset={subset}: must be a subset of the dataset {dataset}; try one of {subsets}")


def _of_config(names: Sequence[str], config: Mapping[str, Any], dataset: str, split: str) -> list[str]:
    folder = str(config.get("data_dir") or "").strip("./")
    inside = [name for name in names if not folder or name.startswith(f"{folder}/")]
    files = config.get("data_files")
    if files is None:
        return _of_names(inside, dataset, None, split)
    splits = _splits(files)
    if split not in splits:
        known = ", ".join(sorted(splits))
        raise DataError(f"data.split={split}: must be a split of the dataset {dataset}; try one of {known}")
    patterns = [_pattern(f"{folder}/{each}" if folder else each) for each in splits[split]]
    return [name for name in inside if any(pattern.fullmatch(name) for pattern in patterns)]


def _splits(files: Any) -> dict[str, list[str]]:
    """Return the file patterns of each split. `files` is the value of `data_files` in any form that the Hub
    documents."""
    if isinstance(files, dict):
        return {str(split): _paths(paths) for split, paths in files.items()}
    entries = files if isinstance(files, list) else [files]
    if all(isinstance(entry, dict) for entry in entries):
        splits: dict[str, list[str]] = {}
        for entry in entries:
            splits.setdefault(str(entry.get("split", "train")), []).extend(_paths(entry.get("path")))
        return splits
    return {"train": _paths(entries)}


def _paths(paths: Any) -> list[str]:
    return [str(path) for path in (paths if isinstance(paths, list) else [paths]) if path]


def _pattern(glob: str) -> re.Pattern[str]:
    """Compile a path, a folder or a glob pattern in the Hub's syntax (*, ?, [...] and **) to a regular expression."""
    from fsspec.utils import glob_translate  # a dependency of huggingface_hub

    glob = glob.removeprefix("./")
    try:
        return re.compile(glob_translate(f"{glob}**" if glob.endswith("/") else glob))
    except (re.error, ValueError) as error:
        raise DataError(f"the dataset card has the file pattern {glob!r}, which is not valid ({error})") from error


def _of_names(names: Sequence[str], dataset: str, subset: str | None, split: str) -> list[str]:
    if subset is not None:
        inside = [name for name in names if subset in name.split("/")[:-1]]
        if not inside:
            folders = ", ".join(sorted({name.split("/")[0] for name in names if "/" in name})) or "none"
            raise DataError(
                f"data.subset={subset}: must be a folder of the dataset {dataset}, which has the folders: {folders}"
            )
        names = inside
    texts = [name for name in names if _is_text(name)]
    # If there are text files of other types, a .json file contains a vocabulary or settings, not text.
    texts = [name for name in texts if not name.lower().endswith(".json")] or texts or list(names)
    chosen = [name for name in texts if _has_word(name, WORDS.get(split, (split,)))]
    if not chosen and split == "train":
        others = [word for name, words in WORDS.items() if name != "train" for word in words]
        return [name for name in texts if not _has_word(name, others)]
    return chosen


def _has_word(name: str, words: Sequence[str]) -> bool:
    return re.search(rf"(?:^|[^a-zA-Z])(?:{'|'.join(map(re.escape, words))})(?:[^a-zA-Z]|$)", name) is not None


def _check_whole(names: Sequence[str], dataset: str) -> None:
    """Raise DataError if a numbered file, such as train-00002-of-00080.parquet, is missing. This can happen if the Hub
    cannot be reached and its local cache contains only some of the files."""
    numbered = Counter(match.group(1, 3, 4) for name in names if (match := _OF.fullmatch(name)))
    for (before, total, after), there in numbered.items():
        if there < int(total):
            raise DataError(
                f"dataset {dataset}: only {there} of {int(total)} files {before}-*-of-{total}{after} are available. "
                "Download the dataset with a connection to the Hub, or read only these files: data.source=text "
                "data.path=..."
            )
