"""Child processes of tfscale and the environment that they inherit.

A child gets this process's environment, except

- the variables that describe one of several ranks: the launcher of the ranks sets them, and leftovers of a shell or
  another launcher would make a child wait for ranks that never start;
- the working folder as an import path (`tfscale.import_path`), and variables that keep Python running at its end;
- the settings of a notebook for figures;
- MLflow's settings, because a single process communicates with MLflow. MLflow's own server keeps them.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from shlex import quote
from types import MappingProxyType
from typing import IO

from tfscale.import_path import python_path

RANK_VARIABLES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "NODE_RANK", "ROLE_NAME",
    "ROLE_RANK", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
"""Variables in which torchrun and clusters describe each of several ranks."""
REMOVED = (*RANK_VARIABLES, "PYTHONINSPECT", "PYTHONSTARTUP", "MPLBACKEND", "MATPLOTLIBRC")
REMOVED_PREFIXES = ("TORCHELASTIC_", "PET_")
"""Prefixes of variables that torchrun sets for its workers or reads as defaults of its options."""
MLFLOW = "MLFLOW_"
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Variables that switch telemetry off, unless the user's environment sets them otherwise."""
NOTHING: Mapping[str, str] = MappingProxyType({})


def environment(
    told: Mapping[str, str] = NOTHING, *, defaults: Mapping[str, str] = NOTHING, mlflow: bool = False
) -> dict[str, str]:
    """Return the environment of a child process.

    Args:
        told: variables that override this process's environment.
        defaults: variables that this process's environment overrides.
        mlflow: True to keep the settings of MLflow.
    """
    prefixes = REMOVED_PREFIXES if mlflow else (*REMOVED_PREFIXES, MLFLOW)
    inherited = {
        name: value for name, value in os.environ.items() if name not in REMOVED and not name.startswith(prefixes)
    }
    path = python_path()
    inherited.pop("PYTHONPATH", None)
    return {
        **QUIET,
        **defaults,
        **inherited,
        **({"PYTHONPATH": path} if path else {}),
        "PYTHONSAFEPATH": "1",  # unlike `python -P`, this also holds for children of the child
        **told,
    }


def shell_lines() -> list[str]:
    """Return the lines of a shell script that turn this process's environment into that of a child."""
    child = environment()
    gone = [f"unset {name}" for name in sorted(os.environ.keys() - child.keys()) if name.isidentifier()]
    changed = sorted(name for name, value in child.items() if os.environ.get(name) != value)
    return [*gone, *(f"export {name}={quote(child[name])}" for name in changed)]


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this Python."""
    return [sys.executable, "-m", module, *arguments]


def start(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that must end when its standard input ends. The input is a pipe that this process holds, so the
    child ends with this process, even if this process is killed. It has its own session: Ctrl-C does not reach it.

    Args:
        env: environment from `environment`; None: its default.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env=environment() if env is None else env,
        start_new_session=True,
    )


def run(
    command: Sequence[str], *, stdout: int = subprocess.PIPE, stderr: int | None = subprocess.PIPE, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a short command to completion, with empty standard input.

    Raises:
        OSError: the program does not exist or cannot be run.
        subprocess.CalledProcessError: `check` is set and the command failed.
    """
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True, check=check, env=environment()
    )
