"""MLflow's own page on the runs."""

from tfscale import children
from tfscale.tracking.store import Store, quiet_environment


def ui_command(store: Store, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves MLflow's page on a store, to be run with `ui_environment` until it is interrupted.

    Raises:
        ValueError: the store is a server, which has a page of its own.
    """
    if store.artifacts is None:
        raise ValueError(f"tracking.uri={store.shown} is an MLflow server: open it in a browser")
    return [
        *children.python("mlflow", "server"),
        *("--backend-store-uri", store.uri),
        *("--artifacts-destination", store.artifacts),
        *("--host", host, "--port", str(port), "--workers", "1"),
    ]


def ui_environment() -> dict[str, str]:
    """The environment of that command: this process's, with nothing that phones home and no background jobs."""
    defaults = {**quiet_environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return children.environment(defaults=defaults, mlflow=True)
