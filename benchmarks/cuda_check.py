"""Checks the CUDA path: correctness, memory and speed, from a bare checkout.

    python benchmarks/cuda_check.py all OUT [--deadline SECONDS]    every part, each in a process of its own
    python benchmarks/cuda_check.py PART OUT                        one part, in this process
    python benchmarks/cuda_check.py summary OUT                     the table of what OUT/results.jsonl holds

Needs torch, numpy and safetensors. `--tiny --cpu` runs the smallest sizes on a CPU, to see that everything works.
Exit codes: 0 every part ran, nothing failed and all bounds are held; 1 otherwise; 2 wrong usage.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The checkout in place of this folder, where a package of the name `cuda` would stand before others of that name.
sys.path[:] = [str(ROOT), *(entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent)]

from benchmarks.cuda.findings import RESULTS, Recorder  # noqa: E402
from benchmarks.cuda.parts import GROUPS, PARTS, Part  # noqa: E402
from benchmarks.cuda.runner import run_groups  # noqa: E402
from benchmarks.cuda.summary import summarize  # noqa: E402
from tfscale.leash import end_with_input  # noqa: E402

DEADLINE_SECONDS = 530.0


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["all", *PARTS, "summary"], metavar="all|PART|summary", help=", ".join(PARTS))
    parser.add_argument("out", type=Path, help="folder for results.jsonl, summary.md and logs")
    parser.add_argument("--deadline", type=float, default=DEADLINE_SECONDS, help="seconds for all parts together")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes")
    parser.add_argument("--cpu", action="store_true", help="on the CPU, eager")
    parser.add_argument("--supervised", action="store_true", help="end when standard input does")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    if arguments.what == "summary":
        if not (out / RESULTS).exists():
            parser.error(f"{out / RESULTS}: does not exist; run `all` first")
        return _tell(out)
    if not arguments.cpu and not _finds_cuda():
        parser.error("torch finds no CUDA device; --tiny --cpu runs the smallest sizes on the CPU")
    out.mkdir(parents=True, exist_ok=True)
    if arguments.supervised:
        end_with_input()
    if arguments.what in PARTS:
        _run(PARTS[arguments.what], out, arguments.tiny, arguments.cpu)
        return 0
    if (out / RESULTS).exists():
        parser.error(f"{out}: holds the results of another check; give an empty folder")
    options = [f"--{name}" for name in ("tiny", "cpu") if getattr(arguments, name)]
    run_groups(GROUPS, lambda part: _command(part, out, options), out, arguments.deadline)
    return _tell(out)


def _finds_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _tell(out: Path) -> int:
    text, good = summarize(out, list(PARTS))
    print(text)
    return 0 if good else 1


def _command(part: Part, out: Path, options: Sequence[str]) -> list[str]:
    return [sys.executable, str(Path(__file__).resolve()), part.name, str(out), "--supervised", *options]


def _run(part: Part, out: Path, tiny: bool, cpu: bool) -> None:
    from benchmarks.cuda.check import Check

    check = Check(out, Recorder(out, part.name), "cpu" if cpu else "cuda", tiny)
    check.settings.apply()
    part.run(check)


if __name__ == "__main__":
    sys.exit(main())
