"""Connection to a project of Weights & Biases, whose runs are written offline."""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.tracking.points import Over, Point
from tfscale.tracking.runs import ARM, ROLE, About, Artifact, Contents
from tfscale.tracking.tracker import Sink
from tfscale.tracking.wandb.log import logs, rows

if TYPE_CHECKING:
    import wandb

OVER_FLOPS = "by_flops/"
"""Prefix of the names of metrics whose x-axis is the number of model FLOPs. The x-axis of all other metrics is the
number of training tokens. The prefix is needed because W&B allows only one x-axis per metric."""
_PARTS = ("train", "heldout", "total", "system", "final", "eval")
"""Prefixes of the names of metrics whose x-axis is the number of training tokens (`tfscale.tracking.points`)."""
_FLUSH_SECONDS = 0.05
_LONGEST_WAIT = 30.0
_OPEN: dict[str, tuple[Path, "wandb.Run"]] = {}
"""Open W&B runs by run ID, each with the folder of the connection that opened the run. A process can open a run ID only
once, so all connections share the open runs."""


class WandbSink(Sink):
    """Connection that writes the runs of a W&B project to offline logs. A log is created when its first value or file
    is written.

    Each row of a log has its own step number, which continues across the logs of a run. The position in tokens or FLOPs
    is one of the row's values. Values count as sent when they can be read back from the log.
    """

    def __init__(self, folder: Path, project: str) -> None:
        self._folder, self._project = folder, project
        self._known: dict[str, tuple[About, Contents]] = {}
        self._rows: Counter[str] = Counter()

    def run_ids(self) -> set[str]:
        return {log.stem.removeprefix("run-") for log in logs(self._folder)}

    def open(self, about: About, contents: Contents, parent: str | None) -> str:
        run_id = sha256(f"{self._project}\n{about.identity}".encode()).hexdigest()[:16]
        self._known[run_id] = about, contents
        return run_id

    def stored_counts(self, run_id: str) -> Counter[Hashable]:
        there = [row for log in logs(self._folder, run_id) for row in rows(log)]
        self._rows[run_id] = len(there)
        return Counter(self.point_key(point) for row in there for point in _points(row))

    def send(self, run_id: str, points: Sequence[Point]) -> None:
        grouped: defaultdict[tuple[Over, float, int], dict[str, float]] = defaultdict(dict)
        for point in points:
            grouped[point.over, point.at, point.time][_name(point)] = point.value
        for (over, at, milliseconds), values in grouped.items():
            row = {over: at, "_timestamp": milliseconds / 1000, **values}
            self._run(run_id).log(row, step=self._rows[run_id], commit=True)
            self._rows[run_id] += 1
        if grouped:
            self._wait(run_id)

    def send_file(self, run_id: str, file: Artifact) -> None:
        folder = Path(self._run(run_id).dir)
        (folder / file.path.name).write_bytes(file.content())
        self._run(run_id).save(folder / file.path.name, base_path=folder, policy="now")

    def finish(self, run_id: str, contents: Contents) -> None:
        """Set the status in the summary of an open run. The run is not closed, because its files are sent later."""
        folder, run = _OPEN.get(run_id, (None, None))
        if run is not None and folder == self._folder:
            run.summary["status"] = contents.status

    def _run(self, run_id: str) -> "wandb.Run":
        if run_id in _OPEN and _OPEN[run_id][0] != self._folder:
            _OPEN.pop(run_id)[1].finish()
        if run_id not in _OPEN:
            _OPEN[run_id] = self._folder, self._begin(run_id, *self._known[run_id])
        return _OPEN[run_id][1]

    def _begin(self, run_id: str, about: About, contents: Contents) -> "wandb.Run":
        import wandb

        if not _OPEN:
            os.environ.pop("WANDB_SERVICE", None)  # inherited from a parent process, which may have the same runs open
        corpus = {"corpus": contents.corpus.fingerprint} if contents.corpus else {}
        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, host="", x_save_requirements=False,
            x_disable_meta=True, x_disable_machine_info=True, x_disable_stats=True,
            x_transaction_log_flush_interval=_FLUSH_SECONDS,
        )  # fmt: skip
        run = wandb.init(
            mode="offline", dir=self._folder, project=self._project, id=run_id, name=about.name, notes=about.note,
            group=about.tags.get(ARM), job_type=about.tags[ROLE], config={**about.tags, **contents.params, **corpus},
            reinit="create_new", settings=settings,
        )  # fmt: skip
        for over in ("tokens", "flops"):
            run.define_metric(over, hidden=True)
        run.define_metric(f"{OVER_FLOPS}*", step_metric="flops")
        for part in _PARTS:
            run.define_metric(f"{part}/*", step_metric="tokens")
        return run

    def _wait(self, run_id: str) -> None:
        """Wait until all rows of a run can be read from its logs. If rows are missing after `_LONGEST_WAIT` seconds,
        close the log, so that the missing rows are not written later, and raise TimeoutError."""
        deadline = time.monotonic() + _LONGEST_WAIT
        while sum(1 for log in logs(self._folder, run_id) for _ in rows(log)) < self._rows[run_id]:
            if time.monotonic() > deadline:
                _OPEN.pop(run_id)[1].finish()
                raise TimeoutError(f"run {run_id}: rows have not been written after {_LONGEST_WAIT:g} s")
            time.sleep(_FLUSH_SECONDS)


def _name(point: Point) -> str:
    return (OVER_FLOPS if point.over == "flops" else "") + point.name


def _points(row: dict[str, Any]) -> list[Point]:
    over: Over = "flops" if "flops" in row else "tokens"
    time = round(row["_timestamp"] * 1000)
    names = [name for name in row if name != over and not name.startswith("_")]
    return [Point(name.removeprefix(OVER_FLOPS), over, row[over], row[name], time) for name in names]
