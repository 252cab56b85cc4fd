"""Tracker run of the comparison of all arms, with its figures, tables and report."""

from dataclasses import dataclass
from pathlib import Path

from tfscale.plan.arms import Arm
from tfscale.tracking.points import milliseconds
from tfscale.tracking.runs import ARM_KEY, ROLE, About, Artifact, Contents


@dataclass(frozen=True)
class ComparisonRun:
    """Tracker run with the files in the folder of a comparison, and with the comparison's table as its note."""

    chain: Arm
    """Chain with which the other arms are compared."""
    folder: Path

    def about(self) -> About:
        table = self.folder / "table.md"
        note = table.read_text(encoding="utf-8") if table.is_file() else ""
        return About(f"comparison of {self.chain.title}", {ROLE: "comparison", ARM_KEY: self.chain.key}, note=note)

    def sources(self) -> list[Path]:
        return [path for path in sorted(self.folder.glob("[!.]*")) if path.is_file()]

    def contents(self) -> Contents | None:
        files = self.sources()
        times = [milliseconds(path.stat().st_mtime) for path in files]
        return Contents("finished", min(times), max(times), files=[Artifact(path) for path in files]) if times else None
