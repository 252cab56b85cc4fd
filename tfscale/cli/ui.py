"""tfscale ui: MLflow's own page."""

import socket

from tfscale import children
from tfscale.cli.common import Common
from tfscale.cli.console import say
from tfscale.cli.execute import tracking_store
from tfscale.faults import UserFault, user_faults
from tfscale.leash import leashed
from tfscale.tracking.store import experiment_id
from tfscale.tracking.ui import ui_command, ui_environment
from tfscale.tracking.view import view_url


def ui(common: Common, port: int) -> int:
    """Serves the page until it is interrupted; returns the exit code."""
    plan = common.plan()
    store = tracking_store(plan)
    if store is None:
        raise UserFault(["tracking.enabled is false: there is no store to show"])
    with user_faults():
        command = ui_command(store, port=port)
    _check_port(port)
    page = f"http://127.0.0.1:{port}"
    say(f"{page}  (Ctrl-C ends it)")
    found = experiment_id(store, plan.experiment.schedule.name)
    if found is not None:
        say(f"perplexity over compute: {view_url(page, found)}")
    server = children.start(leashed(command), ui_environment())
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.communicate()  # the end of its input ends it
        return 0


def _check_port(port: int) -> None:
    """Makes sure that a server can listen on a port of this machine.

    Raises:
        UserFault: it cannot.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port whose last server has just ended is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserFault([f"--port={port}: must be a free port ({error.strerror}); try --port {_free()}"]) from error


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
