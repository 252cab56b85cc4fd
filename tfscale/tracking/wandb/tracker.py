"""Weights & Biases as a tracker that writes runs offline."""

import os
from importlib.util import find_spec
from pathlib import Path

from tfscale.faults import Fault, InvalidInput
from tfscale.tracking.tracker import Sink, Tracker


class WandbTracker(Tracker):
    """Folder of offline runs of Weights & Biases, by default `wandb` in the runs folder. Nothing is uploaded unless the
    user runs `wandb sync`.

    Args:
        uri: folder that contains the folder `wandb`, or None for the runs folder. `~` is the home folder.

    Raises:
        ValueError: the URI is not a path, or the wandb package is not installed.
    """

    title = "Weights & Biases"

    def __init__(self, runs: Path, uri: str | None = None) -> None:
        if uri and "://" in uri:
            rule = "must be a folder with tracking.kind=wandb, which writes runs offline"
            raise InvalidInput(Fault("tracking.uri", uri, rule, "`wandb sync` to upload them"))
        if find_spec("wandb") is None:
            rule = "needs the package wandb, which is not installed"
            raise InvalidInput(Fault("tracking.kind", "wandb", rule, "pip install 'tfscale[wandb]'"))
        super().__init__(runs, str(Path(uri).expanduser().resolve() if uri else runs.resolve()))

    @property
    def shown(self) -> str:
        return str(Path(self.uri) / "wandb")

    def connect(self, experiment: str) -> Sink:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb reports its own errors to its makers
        os.environ.setdefault("WANDB_SILENT", "true")
        from tfscale.tracking.wandb.sink import WandbSink

        Path(self.uri).mkdir(parents=True, exist_ok=True)
        return WandbSink(Path(self.uri), experiment)

    def exists(self) -> bool:
        return Path(self.shown).exists()
