"""Tests that every fault in docs/reliability.md has a test."""

import re
from pathlib import Path

import pytest
from faults.table import ROOT, Fault, faults


def test_the_table_has_all_its_rows() -> None:
    assert len(faults()) >= 25


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.name)
def test_every_fault_of_the_table_has_its_test(fault: Fault) -> None:
    assert fault.tests
    for test in fault.tests:
        file, _, name = test.partition("::")
        assert (ROOT / file).is_file(), test
        source = Path(ROOT / file).read_text(encoding="utf-8")
        assert not name or re.search(rf"^def {name}\(", source, re.MULTILINE), test
