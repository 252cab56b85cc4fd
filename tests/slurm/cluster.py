"""Shared functions of the stand-ins for Slurm's commands. The cluster is this machine: jobs are real processes with
real signals and time limits, and a minute of the cluster lasts SLURM_STANDIN_MINUTE seconds.

The state is in the folder SLURM_STANDIN, with a file per job, which only the keeper of the job writes, and files with
requests to the keeper. SLURM_STANDIN_FIRST is the number of the first job. Clusters that run at the same time need
different numbers, because submitit derives the port of a job from its number. SLURM_STANDIN_TRACKING selects the
receivers of a signal to a job: `tasks`, as in Slurm with cgroup tracking, or `all` processes of the job.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(os.environ["SLURM_STANDIN"])
MINUTE = float(os.environ.get("SLURM_STANDIN_MINUTE", "60"))
TRACKING = os.environ.get("SLURM_STANDIN_TRACKING", "tasks")
KILL_WAIT = 5.0
"""Time between the SIGTERM and the SIGKILL of a job that has to end, in seconds."""
LIVE = ("PENDING", "RUNNING", "COMPLETING")


def write(path: Path, values: dict[str, Any]) -> None:
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(values))
    aside.replace(path)


def jobs() -> Iterator[dict[str, Any]]:
    """Yield all jobs, including finished ones."""
    for path in sorted(ROOT.glob("job-*.json")):
        yield json.loads(path.read_text())


def named(name: str) -> list[str]:
    """Return the IDs of the jobs that a name such as 12 or 12_0 stands for."""
    return [job["id"] for job in jobs() if name in (job["id"], job["id"].partition("_")[0])]


def ask(job: str, **request: Any) -> None:
    """Write a request to the keeper of a job."""
    write(ROOT / f"request-{job}-{time.time_ns()}.json", request)


def children(pid: int) -> Iterator[int]:
    """Yield all processes below a process."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(file.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            child = int(file.parent.name)
            yield child
            yield from children(child)


def send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


class Keeper:
    """Process that runs one job from its submission to its end."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job, self.name = job, job["id"]
        self.script: subprocess.Popen[bytes] | None = None
        self.limit = self.started = 0.0

    def state(self, state: str) -> None:
        self.job["state"] = state
        write(ROOT / f"job-{self.name}.json", self.job)

    def requests(self) -> Iterator[dict[str, Any]]:
        for path in sorted(ROOT.glob(f"request-{self.name}-*.json")):
            yield json.loads(path.read_text())
            path.unlink()

    def keep(self) -> None:
        self.job["keeper"] = os.getpid()
        while True:
            end = self.run()
            if end != "REQUEUED":
                break
            self.job["restarts"] += 1
            self.state("PENDING")
            time.sleep(0.5)
        self.state(end)

    def run(self) -> str:
        """Run the script once and return how it ended."""
        task = self.name.partition("_")[2]
        environment = {
            **os.environ,
            "SLURM_JOB_ID": self.job["raw_id"],
            "SLURM_JOB_NUM_NODES": str(self.job["nodes"]),
            "SLURM_NTASKS": str(self.job["nodes"] * self.job["tasks"]),
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_RESTART_COUNT": str(self.job["restarts"]),
            "SLURM_STANDIN_NAME": self.name,
        }
        if task:
            environment |= {"SLURM_ARRAY_JOB_ID": self.name.partition("_")[0], "SLURM_ARRAY_TASK_ID": task}
        output = self.job["output"].replace("%j", self.name).replace("%A_%a", self.name)
        with Path(output).open("ab") as log:
            command = ["bash", self.job["script"]]
            self.script = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        self.started, self.limit = time.monotonic(), self.job["minutes"] * MINUTE
        self.state("RUNNING")
        told, end = False, ""
        while self.script.poll() is None:
            for request in self.requests():
                if "limit" in request:
                    self.limit = time.monotonic() - self.started + request["limit"]
                elif "signal" in request:
                    self.signal(request["signal"])
                else:
                    end = request["end"]
            ran = time.monotonic() - self.started
            if not told and ran > self.limit - self.job["signal_seconds"] * MINUTE / 60:
                told = True
                self.signal(self.job["signal"])
            if ran > self.limit:
                end = "TIMEOUT"
            if end:
                self.end()
                return end
            time.sleep(0.05)
        # A request may arrive when the script ends, for example when the job requeues itself.
        end = next((request["end"] for request in self.requests() if "end" in request), end)
        return end or ("COMPLETED" if self.script.returncode == 0 else "FAILED")

    def signal(self, number: int) -> None:
        assert self.script is not None
        if TRACKING == "all":
            reached = [pid for pid in children(self.script.pid) if not is_srun(pid)]
        else:
            reached = [int(path.read_text()) for path in ROOT.glob(f"task-{self.name}-*")]
        for pid in reached:
            send(pid, number)

    def end(self) -> None:
        assert self.script is not None
        self.state("COMPLETING")
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        before = time.monotonic()
        while self.script.poll() is None and time.monotonic() - before < KILL_WAIT:
            time.sleep(0.05)
        for pid in [*children(self.script.pid), self.script.pid]:
            send(pid, signal.SIGKILL)
        self.script.wait()


def is_srun(pid: int) -> bool:
    try:
        return b"/srun\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def parse_script(path: str) -> dict[str, str]:
    """Return the #SBATCH options of a script."""
    lines = Path(path).read_text().splitlines()
    found = (re.match(r"#SBATCH --([a-z-]+)(?:=(.*))?$", line) for line in lines)
    return {match[1]: (match[2] or "").strip("'") for match in found if match}


def clear() -> None:
    """End every job of the cluster."""
    for job in jobs():
        if job["state"] in LIVE and "keeper" in job:
            for pid in [*children(job["keeper"]), job["keeper"]]:
                send(pid, signal.SIGKILL)


if __name__ == "__main__":
    Keeper(json.loads(Path(sys.argv[1]).read_text())).keep()
