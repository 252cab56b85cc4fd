"""The comparison of all arms: its figures, tables and report."""

from dataclasses import dataclass
from pathlib import Path

from tfscale.plan.arms import Arm
from tfscale.tracking.points import milliseconds
from tfscale.tracking.runs import ARM_KEY, NAME, NOTE, ROLE, Artifact, Corpus, History, digest, stamp

_LONGEST_NOTE = 7500


@dataclass(frozen=True)
class ComparisonRun:
    """A run that holds the files of a comparison's folder, and shows its table."""

    chain: Arm
    """That the comparison is about."""
    folder: Path

    def tags(self) -> dict[str, str]:
        tags = {NAME: f"comparison of {self.chain.title}", ROLE: "comparison", ARM_KEY: self.chain.key}
        table = self.folder / "table.md"
        note = table.read_text(encoding="utf-8") if table.is_file() else ""
        return tags | ({NOTE: note} if 0 < len(note) <= _LONGEST_NOTE else {})

    def params(self) -> dict[str, str]:
        return {}

    def files(self) -> list[Artifact]:
        return [Artifact(path) for path in sorted(self.folder.glob("[!.]*")) if path.is_file()]

    def corpus(self) -> Corpus | None:
        return None

    def mark(self) -> str | None:
        files = self.files()
        return digest(self.tags(), [stamp(file.path) for file in files]) if files else None

    def history(self) -> History | None:
        times = [milliseconds(file.path.stat().st_mtime) for file in self.files()]
        return History([], "FINISHED", min(times), max(times)) if times else None
