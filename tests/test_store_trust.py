"""Tests that a stage store cannot name files elsewhere, and that its URI cannot carry a password."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tfscale.config.compose import compose
from tfscale.faults import UserFault
from tfscale.store.remote import Damaged, Store
from tfscale.store.snapshot import MANIFEST_FILE, pull, push


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../../outside"},
        {"path": "/outside"},
        {"path": ""},
        {"sha256": "../../../outside"},
        {"bytes": -1},
        {"bytes": "1"},
    ],
    ids=str,
)
def test_a_manifest_that_lies_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    files = Store(str(tmp_path / "store"))
    (tmp_path / "file").write_text("text")
    push(files, "stages/a/done", {"file": tmp_path / "file"})
    path = tmp_path / "store" / "stages" / "a" / "done" / MANIFEST_FILE
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "files": [{**values["files"][0], **change}]}))
    with pytest.raises(Damaged):
        pull(files, "stages/a/done", tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://key:Zq7/se+cret@bucket/folder", "s3://bucket/folder"),
        ("s3://bucket/folder?token=Zq7secret", "s3://bucket/folder"),
        ("sftp://me:Zq7@host/folder", "sftp://host/folder"),
    ],
)
def test_a_uri_with_a_password_is_refused_and_not_shown(uri: str, shown: str) -> None:
    with pytest.raises(UserFault, match="must not contain a password") as fault:
        compose([f"store={uri}"])
    assert f"try {shown}, with credentials" in str(fault.value)
    assert "Zq7" not in str(fault.value)


def test_a_store_without_its_driver_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(ValueError, match=r"pip install 'tfscale\[s3\]'"):
        Store("s3://bucket")
