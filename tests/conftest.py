"""Fixtures that several test modules share: a small real corpus, small models, and the settings of a chain."""

import gc
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tfscale.cli.console import LOG_WIDTH, console, leave_stdout
from tfscale.config.folders import conf_dir
from tfscale.tracking.mlflow.tracker import MlflowTracker

TEXT = "the a model grows from small to large by adding tokens to its keys and values while loss falls slowly"


settings.register_profile("any machine", deadline=None)  # no test depends on the speed of the machine
settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """Keeps the imported libraries out of later searches for unused objects, of which each takes half a second."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 400 different documents of made-up sentences, about 60 kB."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)  # noqa: S311
    documents = [" ".join(draw.choices(TEXT.split(), k=draw.randint(20, 40))) for _ in range(400)]
    for number in range(4):
        text = "\n".join(f'{{"text": "{document}"}}' for document in documents[number::4])
        (folder / f"part{number}.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def small(corpus: Path, tmp_path: Path) -> list[str]:
    """Overrides that make any chain small enough to train in seconds, in a runs folder of its own."""
    return [
        f"runs={tmp_path / 'runs'}",
        "data=text",
        f"data.path={corpus}",
        "data.vocab_size=257",
        "data.validation_tokens=1024",
        "model.n_layer=1",
        "model.d_model=16",
        "model.n_head=2",
        "model.context=32",
        "optim.batch_tokens=128",
        "optim.lr=1e-2",
        "launcher.threads=1",
        "tracking=none",
        "optim=tiny_adamw",
        "schedule.growth_tokens=1024",
        "schedule.stages.stage1.tokens=2048",
        *(f"schedule.stages.stage{i}.qkv={n}" for i, n in enumerate((4, 8, 18, 32), start=1)),
        *(
            f"schedule.stages.stage{i}.transformer={{n_layer: 1, d_model: 16, n_head: 2, d_ff: 32}}"
            for i in range(1, 5)
        ),
    ]


@pytest.fixture
def two_stages(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, whose conf/ has the default schedule with its first two stages alone."""
    folder = tmp_path_factory.mktemp("two-stages")
    schedule = Path("schedule", "progressive_tiny.yaml")
    (folder / "conf" / "schedule").mkdir(parents=True)
    stages = (conf_dir() / schedule).read_text(encoding="utf-8").partition("    stage3:")[0]
    (folder / "conf" / schedule).write_text(stages, encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def short(small: list[str], two_stages: Path) -> list[str]:
    """Overrides of the same chain with two stages: one that is trained and one that is grown out of it."""
    return [text for text in small if not text.startswith(("schedule.stages.stage3", "schedule.stages.stage4"))]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new MLflow store, whose making takes seconds."""
    store = MlflowTracker(tmp_path_factory.mktemp("schema"))
    store.client()
    assert store.database is not None
    return store.database


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> MlflowTracker:
    """An MLflow store of its own, empty."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return MlflowTracker(tmp_path)


@pytest.fixture(autouse=True)
def _a_wide_console_on_standard_output() -> Iterator[None]:
    """A command in this process that was told --json has its console speak to standard error from then on; and pytest's
    workers tell it that they are 80 columns wide."""
    console.width = LOG_WIDTH
    yield
    leave_stdout(False)
