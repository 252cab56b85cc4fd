"""Tests of classes registered by name, and of modules that register them."""

import sys
from pathlib import Path

import pytest

from tfscale.extensions import Extension, load_extensions, loaded_extensions
from tfscale.registry import Registry

COLOURS: Registry[type] = Registry("paint.colour", {"path": "pathlib:Path"})
PINK = """
from tests.test_extensions import COLOURS
__version__ = "1.2"
@COLOURS.register("{name}")
class Pink: ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder from which modules can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("tfscale.extensions._loaded", {})  # otherwise child processes of later tests would load them
    monkeypatch.setitem(sys.modules, "tests.test_extensions", sys.modules[__name__])
    return tmp_path


def test_a_shipped_class_is_imported_when_it_is_asked_for() -> None:
    assert COLOURS.get("path") is Path
    assert COLOURS.extension_of("path") is None


def test_a_name_that_nothing_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"^paint\.colour=paht: must be one of path.*; try path$"):
        COLOURS.get("paht")


def test_an_extension_registers_its_classes_under_its_name_and_version(folder: Path) -> None:
    (folder / "pink_extension.py").write_text(PINK.format(name="pink"))
    assert Extension("pink_extension", "1.2") in load_extensions(["pink_extension"])
    assert COLOURS.get("pink").__name__ == "Pink"
    assert COLOURS.extension_of("pink") == "pink_extension"


def test_every_extension_that_cannot_be_used_is_told_and_none_of_them_is_loaded(folder: Path) -> None:
    (folder / "taken.py").write_text(PINK.format(name="path"))
    (folder / "unversioned.py").write_text("")
    with pytest.raises(ValueError, match="extensions=") as told:
        load_extensions(["taken", "unversioned", "missing_extension"])
    assert [line.partition(":")[0] for line in str(told.value).splitlines()] == [
        "extensions=taken", "extensions=unversioned", "extensions=missing_extension",
    ]  # fmt: skip
    assert not {"taken", "unversioned"} & {extension.module for extension in loaded_extensions()}
