"""tfscale ui: MLflow's own page."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tfscale.cli.experiment import plan_of, say
from tfscale.cli.run import tracking_store
from tfscale.faults import UserFault
from tfscale.tracking.store import experiment_id
from tfscale.tracking.ui import ui_command, ui_environment
from tfscale.tracking.view import view_url


def ui(overrides: Sequence[str], port: int, config_dir: Path | None) -> int:
    """Serves the page until it is interrupted; returns the exit code."""
    plan = plan_of(overrides, config_dir)
    store = tracking_store(plan)
    if store is None:
        raise UserFault(["tracking.enabled is false: there is no store to show"])
    try:
        command = ui_command(store, port=port)
    except ValueError as error:
        raise UserFault([str(error)]) from error
    page = f"http://127.0.0.1:{port}"
    say(f"{page}  (Ctrl-C ends it)")
    found = experiment_id(store, plan.experiment.schedule.name)
    if found is not None:
        say(f"perplexity over compute: {view_url(page, found)}")
    try:
        return subprocess.run(command, env=ui_environment(), check=False).returncode
    except KeyboardInterrupt:
        return 0
