"""Check the CUDA path for correctness, memory and speed, from a bare checkout.

    python benchmarks/cuda_check.py check OUT                     correctness and speed, 6 minutes
    python benchmarks/cuda_check.py compute OUT --files DIR       a chain that needs a GPU, with baselines, 4 minutes
    python benchmarks/cuda_check.py cli OUT --files DIR           `tfscale run` with a short chain, 1 minute
    python benchmarks/cuda_check.py PART OUT                      one part of `check`
    python benchmarks/cuda_check.py prepare DIR [KEY=VALUE ...]   the folder for --files, on a machine with internet
    python benchmarks/cuda_check.py summary OUT                   the tables of all findings in OUT/results.jsonl
    python benchmarks/cuda_check.py page OUT                      the page docs/measurements/cuda_<device>.md

The check needs torch, numpy and safetensors; `prepare` needs all dependencies of tfscale. `--tiny --cpu` runs the
smallest sizes on a CPU, to test that every part works. The exit code is 0 if every part finished, no measurement failed
and all bounds are met, 2 after a usage error, and 1 otherwise.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
# The checkout replaces this folder in the path, because `cuda` in this folder would hide other packages of that name.
sys.path[:] = [str(ROOT), *(entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent)]

from benchmarks.checkout import import_from_checkout  # noqa: E402
from benchmarks.cuda.findings import RESULTS, Recorder, read  # noqa: E402
from benchmarks.cuda.parts import COMMANDS, PARTS, Part, command_of  # noqa: E402
from benchmarks.cuda.runner import run_groups, run_here  # noqa: E402
from benchmarks.cuda.summary import summarize  # noqa: E402
from tfscale.end_with_input import end_with_input  # noqa: E402

ON_FILES = ("compute", "cli")
"""Parts that read the folder written by `prepare`."""


def main() -> int:
    """Run the command given on the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*dict.fromkeys([*COMMANDS, *PARTS]), "prepare", "summary", "page"]
    parser.add_argument("what", choices=names, metavar="COMMAND", help=", ".join(names))
    parser.add_argument("out", type=Path, help="folder for results.jsonl, summary.md and logs; with prepare, DIR")
    parser.add_argument("overrides", nargs="*", help="prepare: settings of the chain to plan")
    parser.add_argument("--files", type=Path, help="folder written by `prepare`")
    parser.add_argument("--deadline", type=float, help="time limit for all parts together, in seconds")
    parser.add_argument("--tiny", action="store_true", help="use the smallest sizes, with `check` in one process")
    parser.add_argument("--cpu", action="store_true", help="run on the CPU, without compiling")
    parser.add_argument("--without-packages", action="store_true", help="prepare: do not download packages")
    parser.add_argument(
        "--supervised", action="store_true", help="run one part in this process, which ends when standard input closes"
    )
    arguments = parser.parse_intermixed_args()
    os.environ.update(import_from_checkout())
    out: Path = arguments.out.resolve()
    if arguments.what == "prepare":
        return _prepare(out, arguments.overrides, packages=not arguments.without_packages)
    if arguments.what in ("summary", "page"):
        if not (out / RESULTS).exists():
            parser.error(f"{out / RESULTS}: does not exist; run `check` first")
        return _summarize(out) if arguments.what == "summary" else _write_page(out)
    if not arguments.cpu and not _has_cuda():
        parser.error("torch finds no CUDA device; --tiny --cpu runs the smallest sizes on the CPU")
    if arguments.what in ON_FILES and not arguments.files:
        parser.error("--files: must be a folder written by `prepare`")
    files = (arguments.files or Path()).resolve()
    out.mkdir(parents=True, exist_ok=True)
    if arguments.supervised:
        end_with_input()
        _run(PARTS[arguments.what], out, files, arguments)
        return 0
    command = command_of(arguments.what)
    if (out / RESULTS).exists() and {finding.part for finding in read(out)} & set(command.parts):
        parser.error(f"{out}: contains the results of another {arguments.what}; choose an empty folder")
    seconds = command.seconds if arguments.deadline is None else arguments.deadline
    flags = [f"--{name}" for name in ("tiny", "cpu") if getattr(arguments, name)]
    options = ["--files", str(files), "--deadline", str(seconds), *flags]
    groups = [replace(group, seconds=seconds) for group in command.groups] if arguments.tiny else command.groups
    if arguments.tiny and arguments.what == "check":
        run_here(groups, lambda part: _run(part, out, files, arguments), out)
    else:
        run_groups(groups, lambda part: _command(part, out, options), out, seconds)
    return _print_summary(out, command.parts)


def _prepare(folder: Path, overrides: Sequence[str], packages: bool) -> int:
    from benchmarks.cuda.prepared import install_packages, prepare

    prepare(folder, overrides)
    if packages:
        install_packages(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")
    return 0


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _summarize(out: Path) -> int:
    found = {finding.part for finding in read(out)}
    begun = (command.parts for command in COMMANDS.values() if found & set(command.parts))
    return _print_summary(out, [part for parts in begun for part in parts])


def _print_summary(out: Path, expected: Sequence[str]) -> int:
    text, good = summarize(out, expected)
    print(text)
    return 0 if good else 1


def _write_page(out: Path) -> int:
    from benchmarks.cuda.page import write_page

    print(write_page(out, ROOT / "docs" / "measurements"))
    return 0


def _command(part: Part, out: Path, options: Sequence[str]) -> list[str]:
    return [sys.executable, str(Path(__file__).resolve()), part.name, str(out), "--supervised", *options]


def _run(part: Part, out: Path, files: Path, arguments: argparse.Namespace) -> None:
    from benchmarks.cuda.check import Check

    device: Literal["cpu", "cuda"] = "cpu" if arguments.cpu else "cuda"
    seconds = math.inf if arguments.deadline is None else arguments.deadline
    check = Check(out, Recorder(out, part.name), device, arguments.tiny, files, seconds)
    check.settings.apply()
    part.run(check)


if __name__ == "__main__":
    sys.exit(main())
