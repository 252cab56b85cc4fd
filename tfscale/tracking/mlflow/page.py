"""Command and environment for MLflow's web interface."""

from tfscale import children
from tfscale.tracking.mlflow.tracker import MlflowTracker, quiet_environment


def ui_command(tracker: MlflowTracker, port: int = 5000) -> list[str]:
    """Return the command that serves MLflow's web interface for a store. Run it with the environment from
    `ui_environment`.

    Raises:
        ValueError: the store is an MLflow server, which has a web interface of its own.
    """
    if tracker.artifacts is None:
        raise ValueError(f"tracking.uri={tracker.shown}: the store is an MLflow server; open this URI in a browser")
    return [
        *children.python("mlflow", "server"),
        *("--backend-store-uri", tracker.uri),
        *("--artifacts-destination", tracker.artifacts),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]


def ui_environment() -> dict[str, str]:
    """Return the environment for `ui_command`: the variables of this process, with MLflow's telemetry and background
    jobs disabled unless the user has set them."""
    defaults = {**quiet_environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return children.environment(defaults=defaults, mlflow=True)


def experiment_id(tracker: MlflowTracker, name: str) -> str | None:
    """Return the ID of an experiment in a SQLite store, or None if the store is of another kind, cannot be opened, or
    does not have the experiment."""
    if tracker.database is None or not tracker.exists() or tracker.unreachable():
        return None
    found = tracker.client().get_experiment_by_name(name)
    return None if found is None else str(found.experiment_id)
