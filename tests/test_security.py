"""Tests of the statements in docs/security.md, against the code and against a run."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import tfscale
from tfscale.tracking.mlflow.tracker import MlflowTracker, ui_command

PACKAGE = Path(tfscale.__file__).parent
SOURCES = {file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text("utf-8")) for file in PACKAGE.rglob("*.py")}

CODE_CARRIERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "runpy", "code"}
NETWORK = {"requests", "urllib.request", "http.client", "httpx", "aiohttp", "ftplib", "smtplib", "xmlrpc", "telnetlib"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput", "yaml.load",
         "yaml.full_load", "yaml.unsafe_load", "torch.load", "torch.jit.load", "torch.hub.load",
         "hydra.utils.instantiate", "instantiate"}  # fmt: skip


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def is_weights_alone(name: str, call: ast.Call, file: str) -> bool:
    """Return True for the one allowed reader of foreign weights, which only creates tensors and plain containers."""
    told = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    return name == "torch.load" and file == "interop/official.py" and told.get("weights_only") == "True"


def test_nothing_that_is_read_can_carry_code() -> None:
    """The test covers files only. Process pools pickle the data that they send to their own children."""
    for file, tree in SOURCES.items():
        assert not CODE_CARRIERS & {name.partition(".")[0] for name in imported(tree)}, file
        for name, call in calls(tree):
            assert name not in CALLS or is_weights_alone(name, call, file), f"{file}:{call.lineno}"
            for keyword in call.keywords:
                assert keyword.arg not in ("allow_pickle", "trust_remote_code"), f"{file}:{call.lineno}"


def test_processes_are_started_from_lists_and_nothing_opens_a_connection() -> None:
    """The only exception is `tfscale doctor`, which checks the tracking server named by the user. `tfscale ui` looks
    for a free port without connecting."""
    for file, tree in SOURCES.items():
        opened = NETWORK & set(imported(tree))
        assert opened <= ({"urllib.request"} if file == "tracking/mlflow/tracker.py" else set()), file
        for name, call in calls(tree):
            allowed = {"socket.gethostname", *(["socket.socket"] if file == "cli/ui.py" else [])}
            assert not name.startswith("socket.") or name in allowed, f"{file}:{call.lineno}"
            assert not any(keyword.arg == "shell" for keyword in call.keywords), f"{file}:{call.lineno}"


def test_the_check_finds_what_it_looks_for() -> None:
    bad = ast.parse("import pickle\nfrom urllib import request\nimport torch\ntorch.load('x')\neval('1')")
    assert {"pickle", "urllib.request"} <= set(imported(bad))
    assert {name for name, _ in calls(bad)} == {"torch.load", "eval"}


def test_the_page_listens_on_this_machine_alone(tmp_path: Path) -> None:
    command = ui_command(MlflowTracker(tmp_path))
    assert command[command.index("--host") + 1] == "127.0.0.1"
    callers = [call for tree in SOURCES.values() for name, call in calls(tree) if name == "ui_command"]
    assert callers
    assert not any(keyword.arg == "host" for call in callers for keyword in call.keywords), "no option changes the host"


WATCH = """
import os, sys
LOG = os.environ["WATCHED"]
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "os.system", "pickle.find_class"):
        with open(LOG, "a") as log:
            log.write(f"{event} {arguments[1:]!r}\\n")
    elif event == "subprocess.Popen":
        with open(LOG, "a") as log:
            log.write(f"process {arguments[0]}\\n")
sys.addaudithook(watch)
"""
ONE_STAGE = """
defaults: [/model: tokenformer_tiny, /data: text, /optim: tiny, /growth: exact]
schedule: {name: one, stages: {only: {size: S, qkv: 4, tokens: 512}}}
"""


def test_a_whole_run_unpickles_nothing_and_speaks_to_nobody(corpus: Path, tmp_path: Path) -> None:
    """Python's audit events report every connection, process and unpickled name, in `tfscale` and in the stage that it
    starts."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    (tmp_path / "conf" / "schedule").mkdir(parents=True)
    (tmp_path / "conf" / "schedule" / "one.yaml").write_text("# @package _global_" + ONE_STAGE)
    log = tmp_path / "watched"
    told = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'watch'}:{told}", "WATCHED": str(log)}
    text = [f"data.path={corpus}", "data.vocab_size=257", "data.validation_tokens=1024"]
    command = [sys.executable, "-m", "tfscale.cli", "run", "schedule=one", *text, "launcher.threads=1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "mlflow.db").exists()
    seen = log.read_text().splitlines()
    assert any(re.match(rf"process {re.escape(sys.executable)}", line) for line in seen), "the stage was watched"
    allowed = ("process git", "process uname", f"process {sys.executable}")
    assert [line for line in seen if not line.startswith(allowed)] == []
