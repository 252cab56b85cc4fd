"""Functions that start child processes, and functions that return the environment of a child process.

A child inherits the environment of this process, except

- variables that describe a rank of a process group, because a child would wait for other ranks, which never start;
- the working directory on the import path (`tfscale.import_path`), and the variables PYTHONINSPECT and PYTHONSTARTUP;
- the Matplotlib variables MPLBACKEND and MATPLOTLIBRC, which a notebook may set;
- the settings of MLflow, because no child except the MLflow server communicates with MLflow.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import IO

from tfscale.import_path import python_path

RANK_VARIABLES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "NODE_RANK", "ROLE_NAME",
    "ROLE_RANK", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
"""Environment variables with which torchrun and clusters describe a rank."""
REMOVED = (*RANK_VARIABLES, "PYTHONINSPECT", "PYTHONSTARTUP", "MPLBACKEND", "MATPLOTLIBRC")
REMOVED_PREFIXES = ("TORCHELASTIC_", "PET_")
"""Prefixes of environment variables that torchrun sets for its workers or reads as defaults of its options."""
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Environment variables that switch off telemetry, unless the user sets other values."""


def environment(
    variables: Mapping[str, str] | None = None, *, defaults: Mapping[str, str] | None = None, mlflow: bool = False
) -> dict[str, str]:
    """Return the environment of a child process. `variables` override the environment of this process, which overrides
    `defaults`. The settings of MLflow are kept if `mlflow` is True."""
    prefixes = REMOVED_PREFIXES if mlflow else (*REMOVED_PREFIXES, "MLFLOW_")
    inherited = {
        name: value for name, value in os.environ.items() if name not in REMOVED and not name.startswith(prefixes)
    }
    path = python_path()
    inherited.pop("PYTHONPATH", None)
    return {
        **QUIET,
        **(defaults or {}),
        **inherited,
        **({"PYTHONPATH": path} if path else {}),
        "PYTHONSAFEPATH": "1",  # unlike `python -P`, this also applies to children of the child
        **(variables or {}),
    }


def shell_lines() -> list[str]:
    """Return shell commands that turn the environment of this process, which the shell must have inherited, into the
    environment of a child process."""
    child = environment()
    gone = [f"unset {name}" for name in sorted(os.environ.keys() - child.keys()) if name.isidentifier()]
    changed = sorted(name for name, value in child.items() if os.environ.get(name) != value)
    return [*gone, *(f"export {name}={quote(child[name])}" for name in changed)]


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with the current Python interpreter."""
    return [sys.executable, "-m", module, *arguments]


def start(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child process in the environment `env`, by default `environment()`. The standard input of the child is a
    pipe from this process. The command must exit when this pipe is closed, so that the child ends with this process
    even if this process is killed. The child has its own session, so Ctrl-C does not reach it."""
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
    """Run a short command to completion, with empty standard input. Raise OSError if the program cannot be run, and
    subprocess.CalledProcessError if the command fails and `check` is True."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True, check=check, env=environment()
    )
