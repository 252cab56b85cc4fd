"""tfscale ui: MLflow's own page."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tfscale.cli.experiment import console, plan_of
from tfscale.cli.run import tracking_store
from tfscale.faults import UserFault
from tfscale.tracking.ui import ui_command, ui_environment


def ui(overrides: Sequence[str], port: int, config_dir: Path | None) -> int:
    """Serves the page until it is interrupted; returns the exit code."""
    store = tracking_store(plan_of(overrides, config_dir))
    if store is None:
        raise UserFault(["tracking.enabled is false: there is no store to show"])
    try:
        command = ui_command(store, port=port)
    except ValueError as error:
        raise UserFault([str(error)]) from error
    console.print(f"http://127.0.0.1:{port}  (Ctrl-C ends it)")
    try:
        return subprocess.run(command, env=ui_environment(), check=False).returncode
    except KeyboardInterrupt:
        return 0
