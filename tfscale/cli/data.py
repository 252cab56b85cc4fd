"""The commands `tfscale data prepare` and `tfscale data list`, which prepare and list corpora."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from tfscale.cli.common import Common
from tfscale.cli.console import FittedTable, answer, console, say
from tfscale.data.compression import COMPRESSED
from tfscale.data.errors import DataError
from tfscale.data.listing import LeftOut, Listing, TextFile
from tfscale.data.manifest import Manifest, read_manifest
from tfscale.data.progress import Report
from tfscale.data.stored import size_of, stored, unfinished
from tfscale.faults import UserFault
from tfscale.plan.checks import check_experiment
from tfscale.plan.corpus import corpus_of, data_dir, fetch_corpus, listing_of, prepare_corpus, unknown_notes
from tfscale.text import count

LINE_SECONDS = 10.0
"""Minimum time in seconds between two lines of progress in the same phase, if the output is not a terminal."""
SHOWN_NAMES = 5
"""Maximum number of skipped files that are shown per reason."""
SHOWN_REASONS = 20


def prepare(common: Common) -> int:
    """Download and prepare the corpus that the overrides describe, and return the exit code."""
    experiment = common.compose()
    if faults := check_experiment(experiment):
        raise UserFault(faults)
    with PreparationView() as view:
        fetch_corpus(experiment, view)
        view(Report("listing the text"))
        corpus = corpus_of(experiment)
        if corpus.missing:
            raise UserFault([f"data: {fault}" for fault in corpus.missing])
        listing = listing_of(experiment, corpus)
        if listing.left_out:
            console.print(_left_out_table(listing))
        data = prepare_corpus(experiment, corpus, view)
    if listing.files:
        console.print(_read_table(listing, data.manifest.documents))
    say(*unknown_notes(data.manifest), prefix="warning: ")
    if common.as_json:
        answer(_corpus(data.folder, data.manifest) | {"files": _listing_json(listing)})
        return 0
    say(_summary(data.manifest), f"use the corpus in any configuration with data=shards data.path={data.folder}")
    return 0


def show(common: Common) -> int:
    """Print the prepared and the unfinished corpora in the runs folder, and return the exit code."""
    root = data_dir(common.compose())
    corpora = list(_corpora(root))
    if common.as_json:
        answer({"folder": root, "corpora": corpora, "unfinished": unfinished(root)})
        return 0
    rows = FittedTable(f"corpora in {root}", ["fingerprint", "source", "tokenizer"], ["training", "validation", "GB"])
    for corpus in corpora:
        if "damaged" in corpus:
            say(f"damaged: {corpus['damaged']}")
            continue
        source = corpus["source"].get("dataset") or corpus["source"]["source"]
        tokenizer = f"{corpus['tokenizer']['kind']} {corpus['tokenizer']['vocab_size']:,}"
        tokens = [count(corpus[split]["tokens"]) for split in ("training", "heldout")]
        rows.add_row(corpus["fingerprint"], source, tokenizer, *tokens, f"{corpus['bytes'] / 1e9:,.2f}")
    console.print(rows)
    for left in unfinished(root):
        there = f"{left} ({size_of(left) / 1e9:,.2f} GB)"
        say(f"unfinished: {there}; to resume, repeat the command that prepares it; to discard it, remove the folder")
    return 0


def _corpora(root: Path) -> Iterator[dict[str, Any]]:
    for folder in stored(root):
        try:
            yield _corpus(folder, read_manifest(folder)) | {"bytes": size_of(folder)}
        except DataError as fault:
            yield {"folder": folder, "damaged": str(fault)}


def _corpus(folder: Path, manifest: Manifest) -> dict[str, Any]:
    parts = {"training": manifest.train, "heldout": manifest.heldout}
    return {
        "fingerprint": manifest.fingerprint,
        "folder": folder,
        "source": manifest.source,
        "tokenizer": {"kind": manifest.tokenizer.kind, "vocab_size": manifest.tokenizer.vocab_size},
        **{name: {"tokens": part.tokens, "documents": part.documents} for name, part in parts.items()},
        "duplicates": manifest.duplicates,
        "empty": manifest.empty,
        "unknown_tokens": manifest.unknown,
    }


def _summary(manifest: Manifest) -> str:
    return (
        f"prepared {manifest.fingerprint}: {manifest.train.tokens:,} training tokens of {manifest.train.documents:,} "
        f"documents, {manifest.heldout.tokens:,} validation tokens of {manifest.heldout.documents:,}; skipped "
        f"{manifest.duplicates:,} duplicates and {manifest.empty:,} empty documents"
    )


def _read_table(listing: Listing, documents: int) -> FittedTable:
    kinds: dict[str, list[TextFile]] = defaultdict(list)
    for file in listing.files:
        kinds[_kind(file)].append(file)
    total = f"{documents:,}"
    rows = FittedTable("files read", ["type"], ["files", "bytes", "documents"], spare=[])
    for kind, files in sorted(kinds.items()):
        rows.add_row(kind, f"{len(files):,}", _bytes(files), total if len(kinds) == 1 else "")
    if len(kinds) > 1:
        rows.add_row("all", f"{len(listing.files):,}", _bytes(listing.files), total)
    return rows


def _left_out_table(listing: Listing) -> FittedTable:
    reasons: dict[str, list[LeftOut]] = defaultdict(list)
    for each in listing.left_out:
        reasons[each.reason].append(each)
    rows = FittedTable(f"skipped files: {len(listing.left_out):,}", ["name", "reason"], ["bytes"], spare=["bytes"])
    for reason, found in list(reasons.items())[:SHOWN_REASONS]:
        for each in found[:SHOWN_NAMES]:
            rows.add_row(_printable(each.name), reason, "" if each.bytes is None else f"{each.bytes:,}")
        if more := found[SHOWN_NAMES:]:
            rows.add_row(f"and {len(more):,} more (listed by --json)", reason, _bytes(more))
    if rest := [each for found in list(reasons.values())[SHOWN_REASONS:] for each in found]:
        rows.add_row(f"and {len(rest):,} more (listed by --json)", "other reasons", _bytes(rest))
    return rows


def _listing_json(listing: Listing) -> dict[str, Any]:
    return {
        "read": [{"name": _printable(file.name), "bytes": file.bytes} for file in listing.files],
        "left_out": [
            {"name": _printable(each.name), "reason": each.reason, "bytes": each.bytes} for each in listing.left_out
        ],
    }


def _printable(name: str) -> str:
    """Return a file name with escapes for unprintable characters and for bytes that are not UTF-8."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in name)


def _kind(file: TextFile) -> str:
    extensions = PurePath(file.name.lower()).suffixes
    kind = "".join(extensions[-2:] if extensions[-1] in COMPRESSED else extensions[-1:])
    return kind if file.bytes else f"{kind}, empty"


def _bytes(files: Sequence[LeftOut | TextFile]) -> str:
    return f"{sum(file.bytes or 0 for file in files):,}"


class PreparationView:
    """Context manager that shows the progress of a corpus preparation, as a progress bar on a terminal and as
    occasional lines elsewhere."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"))
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("preparing the corpus", total=None, words="")
        self._phase = ""
        self._began = self._told = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def __call__(self, report: Report) -> None:
        """Update the display with a progress report."""
        now = time.monotonic()
        begins = report.phase != self._phase
        if begins:
            self._phase, self._began = report.phase, now
        words = progress_words(report, now - self._began)
        total = report.total or None
        self._bar.update(self._task, description=report.phase, completed=report.done, total=total, words=words)
        if self._bar.disable and (begins or now - self._told > LINE_SECONDS):
            self._told = now
            say(f"{report.phase}{': ' if words else ''}{words}")


def progress_words(report: Report, seconds: float) -> str:
    """Return the progress, speed and remaining time of a preparation phase as text. `seconds` is the time since the
    start of the phase."""
    words = []
    if report.total:
        unit, name = (1e9, "GB") if report.total >= 1e9 else (1e6, "MB")
        words.append(f"{report.done / unit:,.1f} of {report.total / unit:,.1f} {name}")
    if report.documents:
        words.append(f"{report.documents:,} documents")
    if report.tokens and seconds > 1:
        words.append(f"{count(report.tokens)} tokens at {count(report.tokens / seconds)}/s")
    fresh = report.done - report.found
    if fresh > 0 and seconds > 1:
        words.append(f"{_time((report.total - report.done) / fresh * seconds)} left")
    return ", ".join(words)


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else "a minute"
