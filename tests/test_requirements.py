"""Tests of the committed lock files, which have versions that pyproject.toml allows, with hashes, without an index and
without torch."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = ("locked", "lowest")
MACHINES = [
    {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": system, "platform_machine": chip}
    for python in ("3.11", "3.12")
    for system, chip in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]
UNLOCKED = {"torch", "nvidia-ml-py"}
"""Packages outside the lock files: torch, which has several builds, and the package of the extra `gpu`, which needs a
CUDA device."""


def project() -> dict[str, list[Requirement]]:
    """Return the requirements of every extra by name, and the core ones under the empty name."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = {"": table["dependencies"], **table["optional-dependencies"]}
    return {extra: [Requirement(text) for text in listed] for extra, listed in texts.items()}


def bounded(machine: dict[str, str]) -> Iterator[Requirement]:
    """Yield every requirement that the lock files must contain for a machine."""
    environment = default_environment() | machine
    for listed in project().values():
        for one in listed:
            if (
                one.name not in UNLOCKED
                and one.name != "tfscale"
                and (not one.marker or one.marker.evaluate(environment))
            ):
                yield one


def blocks(lock: str) -> list[str]:
    """Return the packages of the lock file, each with its hashes."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return re.split(r"\n(?=\S)", lines.replace("\\\n", " ").strip())


def pins(lock: str, machine: dict[str, str]) -> dict[str, Version]:
    """Return the versions that pip installs from a lock file on a machine."""
    environment = default_environment() | machine
    taken: dict[str, Version] = {}
    for block in blocks(lock):
        requirement = Requirement(block.partition(" --hash")[0].strip())
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name, (pin,) = canonicalize_name(requirement.name), requirement.specifier
            assert pin.operator == "=="
            assert name not in taken, "the lock file has two versions for one machine"
            taken[name] = Version(pin.version)
    return taken


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: "-".join(machine.values()))
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_an_allowed_version_of_every_library(lock: str, machine: dict[str, str]) -> None:
    taken = pins(lock, machine)
    for requirement in bounded(machine):
        assert requirement.specifier.contains(taken[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: "-".join(machine.values()))
def test_the_lowest_lock_holds_every_lower_bound_itself(machine: dict[str, str]) -> None:
    taken = pins("lowest", machine)
    for requirement in bounded(machine):
        bounds = [Version(each.version) for each in requirement.specifier if each.operator in (">=", "==")]
        if bounds:
            assert [taken[canonicalize_name(requirement.name)]] == bounds, requirement


@pytest.mark.parametrize("lock", [*LOCKS, "build"])
def test_every_package_has_hashes_and_no_address(lock: str) -> None:
    assert all("--hash=sha256:" in block for block in blocks(lock))
    assert not re.search(r"index-url|find-links|https?:|file:", (ROOT / "requirements" / f"{lock}.txt").read_text())


@pytest.mark.parametrize("lock", LOCKS)
def test_torch_and_the_libraries_of_its_cuda_builds_are_left_to_torch(lock: str) -> None:
    names = {Requirement(block.partition(" --hash")[0].strip()).name for block in blocks(lock)}
    assert not [name for name in names if re.match(r"(torch|nvidia-.*|cuda-.*)$", name)]


def test_the_makefile_tests_the_oldest_and_the_newest_torch_that_is_allowed() -> None:
    made = dict(re.findall(r"^TORCH_(\w+) := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    (torch,) = [requirement for requirement in project()[""] if requirement.name == "torch"]
    lowest = next(each.version for each in torch.specifier if each.operator == ">=")
    assert made["lowest"] == f"torch=={lowest}.0"
    assert made["latest"] == "torch"  # the newest version that pyproject.toml allows
    (locked,) = Requirement(made["locked"]).specifier
    assert torch.specifier.contains(locked.version)
