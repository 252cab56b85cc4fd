"""Reader of the table in docs/reliability.md, which can run the tests of every fault."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"


@dataclass(frozen=True)
class Fault:
    """Row of the table."""

    name: str
    tests: tuple[str, ...]
    """Paths of test files below the repository, or of single tests in them."""


def faults() -> list[Fault]:
    """Return the rows of the table."""
    table = PAGE.read_text(encoding="utf-8").partition("## Fault by fault")[2]
    rows = re.findall(r"^\| (?!fault|---)(.+?) \| .+ \| (.+) \|$", table, re.MULTILINE)
    return [Fault(name, _tests(cell)) for name, cell in rows]


def _tests(cell: str) -> tuple[str, ...]:
    tests: list[str] = []
    for name in re.findall(r"`([\w.*]*(?:::\w+)?)`", cell):
        file, _, test = name.partition("::")
        if file:
            files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob(file))
        tests += [f"{path}::{test}" if test else path for path in files]
    return tuple(tests)


@dataclass
class Tally:
    """Pytest plugin that counts the tests and inputs of a run."""

    tests: int = 0
    inputs: int = 0
    """Number of inputs to properties, as counted by hypothesis."""
    failed: list[str] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.tests += report.when == "call" and report.passed
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_runtest_teardown(self, item: Any) -> None:
        found = re.findall(r"(\d+) passing", getattr(item, "hypothesis_statistics", ""))
        self.inputs += sum(map(int, found))


def inject_all(examples: int) -> Tally:
    """Run every test of the table, with `examples` new inputs per property."""
    os.environ["TFSCALE_FUZZ_EXAMPLES"] = str(examples)
    tally = Tally()
    nodes = dict.fromkeys(str(ROOT / test) for fault in faults() for test in fault.tests)
    code = pytest.main(["-q", "--no-header", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *nodes], plugins=[tally])
    if code and not tally.failed:
        tally.failed.append(f"the tests could not be run (pytest exit {int(code)})")
    return tally
