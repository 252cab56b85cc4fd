"""Leases in a store, by which two machines do not train the same stage at the same time."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from finished import finished, overrides_of

from tfscale.config.machines import LauncherPart
from tfscale.orchestrate.orchestrator import Orchestrator
from tfscale.plan.plan import Plan
from tfscale.stage.folder import Stage, is_done
from tfscale.store import lease
from tfscale.store.lease import LEASES, Leases
from tfscale.store.remote import Store
from tfscale.store.stages import push_stage


@pytest.fixture(scope="module")
def done(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A chain whose first two stages are finished."""
    return finished(overrides_of(corpus, tmp_path_factory.mktemp("leases")))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def stage(done: Plan, tmp_path: Path) -> Stage:
    """The first stage, on a machine that has nothing of it."""
    first = done.chain.stages[0]
    return replace(first, path=tmp_path / "machine2" / "stages" / first.path.name)


@pytest.fixture
def machines(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Leases]]:
    """Two machines that look for stages without a pause."""
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.0)
    both = [Leases(store, tmp_path / name) for name in ("machine1", "machine2")]
    yield both
    for each in both:
        each.close()


def test_a_stage_is_claimed_by_one_machine_until_that_returns_it(
    machines: list[Leases], store: Store, stage: Stage, tmp_path: Path
) -> None:
    first, second = machines
    assert first.claim(stage) is None
    assert first.claim(stage) is None
    assert "another machine" in (second.claim(stage) or "")
    again = Leases(store, tmp_path / "machine1")
    assert again.claim(stage) is None, "the same folder has its leases after a kill"
    again.close()
    assert second.claim(stage) is None
    second.close()
    assert not store.files(LEASES)


def test_a_lease_that_is_not_renewed_ends(
    machines: list[Leases], store: Store, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = machines
    assert first.claim(stage) is None
    begun = time.time()
    monkeypatch.setattr(lease.time, "time", lambda: begun + lease.LEASE_SECONDS + 1)
    assert second.claim(stage) is None
    first.close()
    assert json.loads(store.read(f"{LEASES}/{stage.path.name}"))["owner"] == second._owner, (
        "not the first one's any more"
    )


def test_a_lease_is_renewed(store: Store, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    machine = Leases(store, tmp_path / "machine1")
    assert machine.claim(stage) is None
    content = store.read(f"{LEASES}/{stage.path.name}")
    while store.read(f"{LEASES}/{stage.path.name}") == content:
        time.sleep(0.01)
    machine.close()


def test_a_machine_that_slept_too_long_does_not_renew_the_lease_of_another(
    store: Store, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    path = f"{LEASES}/{stage.path.name}"
    machine = Leases(store, tmp_path / "machine1")
    assert machine.claim(stage) is None
    theirs = json.dumps({"owner": "another", "until": time.time() + 100}).encode()
    for _ in range(50):  # a renewal that had begun before the first of these is overwritten
        store.write(path, theirs)
        time.sleep(0.02)
    time.sleep(0.2)
    assert store.read(path) == theirs
    machine.close()
    assert store.read(path) == theirs
    again = Leases(store, tmp_path / "machine1")
    assert "another machine" in (again.claim(stage) or "")
    again.close()


def test_a_store_that_is_away_or_a_damaged_lease_prevents_no_training(
    machines: list[Leases], store: Store, stage: Stage, tmp_path: Path
) -> None:
    store.write(f"{LEASES}/{stage.path.name}", b"[]")
    assert machines[0].claim(stage) is None
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "store").write_text("in the way")
    assert machines[1].claim(stage) is None
    (tmp_path / "store").unlink()


class Nothing:
    """A view of a run that fails if a process is started, and counts how often it is told to wait."""

    def __init__(self) -> None:
        self.waits = self.ends = 0

    def waiting(self, stage: Stage, holder: str) -> None:
        assert "another machine" in holder
        self.waits += 1

    def finished(self, stage: Stage) -> None:
        self.ends += 1

    def tick(self) -> None:
        pass


def test_what_another_machine_trains_is_waited_for_and_taken_from_the_store(
    done: Plan, machines: list[Leases], store: Store, stage: Stage
) -> None:
    first, second = machines
    assert first.claim(stage) is None

    class View(Nothing):
        def tick(self) -> None:
            if self.waits == 2:
                push_stage(store, done.chain.stages[0].path)

    view = View()
    assert Orchestrator([stage], LauncherPart(), view, claims=second).run()  # type: ignore[arg-type]
    assert is_done(stage)
    assert (view.waits, view.ends) == (2, 1)
