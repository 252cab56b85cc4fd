"""The command `tfscale ui`, which serves the web page of MLflow."""

import socket

from tfscale import children
from tfscale.cli.common import Common
from tfscale.cli.console import say
from tfscale.cli.execute import tracker_of
from tfscale.end_with_input import until_input_ends
from tfscale.faults import UserFault, user_faults
from tfscale.tracking.mlflow.tracker import MlflowTracker, experiment_id, ui_command, ui_environment
from tfscale.tracking.mlflow.view import view_url


def ui(common: Common, port: int) -> int:
    """Serve the web page of MLflow until Ctrl-C, and return the exit code."""
    plan = common.plan()
    tracker = tracker_of(plan.experiment)
    if tracker is None:
        raise UserFault(["tracking.enabled=false: must be true to serve a page; try tracking=mlflow"])
    if not isinstance(tracker, MlflowTracker):
        kind = plan.experiment.tracking.kind
        raise UserFault([f"tracking.kind={kind}: must be mlflow to serve a page; open the page of {tracker}"])
    with user_faults():
        command = ui_command(tracker, port=port)
    _check_port(port)
    page = f"http://127.0.0.1:{port}"
    say(f"{page}  (stop with Ctrl-C)")
    server = children.start(until_input_ends(command), ui_environment())
    try:
        found = experiment_id(tracker, plan.experiment.schedule.name)
        if found is not None:
            say(f"perplexity over compute: {view_url(page, found)}")
        return server.wait()
    except KeyboardInterrupt:
        server.communicate()  # ends the server by closing its input
        return 0


def _check_port(port: int) -> None:
    """Raise UserFault if a server cannot listen on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # allows a port whose server has just ended
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserFault([f"--port={port}: must be a free port ({error.strerror}); try --port {_free()}"]) from error


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
