"""Measure speed and memory, and compare them with other implementations and with the targets.

`python -m benchmarks` needs a checkout. `tfscale bench` measures training steps on a user's own machine.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.chart import draw_chart, has_chart
from benchmarks.checkout import import_from_checkout
from benchmarks.targets import judge, targets_sheet
from tfscale.bench.rows import Found, Note
from tfscale.bench.run import run
from tfscale.bench.settings import resolve_settings
from tfscale.bench.tables import to_markdown, write_files

PARTS = ("pattention", "step", "growth", "data", "overhead", "orchestration")
"""Parts of the benchmark that are measured by default, in the order of measurement."""
OTHERS = ("memory", "partition")
"""Parts that are only measured if they are named on the command line."""
REMARK = "On the CPU, GPT-2, official and plain eager in `step` run with the default allocator settings of glibc."


def main() -> int:
    """Measure the parts, print the result as Markdown, write files with --out, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all); {', '.join(OTHERS)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="use small sizes and few rounds, to test that every part works"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all cores)")
    parser.add_argument("--case", default="", help="measure only cases whose names contain this text, such as 124M")
    parser.add_argument("--out", type=Path, help="folder for JSON, Markdown, PNG and SVG files", metavar="FOLDER")
    arguments = parser.parse_args()
    if unknown := [part for part in arguments.parts if part not in PARTS + OTHERS]:
        parser.error(f"{', '.join(unknown)}: unknown part; choose from {', '.join(PARTS + OTHERS)}")
    try:
        settings = resolve_settings(arguments.device, arguments.quick, arguments.threads, arguments.case)
    except ValueError as error:
        parser.error(str(error))
    parts = {part: f"benchmarks.{part}" for part in arguments.parts or PARTS}
    result = run(parts, settings, _print_progress, import_from_checkout())
    verdicts = judge(result.rows, settings.on_cuda)
    text = to_markdown(result, [targets_sheet(verdicts)] if verdicts else [], REMARK)
    print(text)
    if arguments.out:
        content = {**result.to_json(), "verdicts": [verdict.to_json() for verdict in verdicts]}
        contents = {".json": (json.dumps(content, indent=1) + "\n").encode(), ".md": text.encode()}
        if has_chart(result.rows, verdicts):
            device = result.machine["device"]
            contents[".png"] = draw_chart(device, result.rows, verdicts, "png")
            contents[".svg"] = draw_chart(device, result.rows, verdicts, "svg")
        for path in write_files(arguments.out, result.machine["device"], contents):
            print(path, file=sys.stderr)
    return 1 if result.failed else 0


def _print_progress(found: Found) -> None:
    words = found.words if isinstance(found, Note) else f"{found.case}, {found.name}"
    print(f"{found.part}: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
