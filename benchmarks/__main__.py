"""python -m benchmarks: all measurements of this project, beside other implementations and beside their targets.

Runs in the checkout. `tfscale bench` measures training steps on a user's own machine.
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
"""The parts in the order in which they are measured."""
OTHERS = ("memory", "partition")
"""Parts that are measured only if they are named."""
REMARK = "On the CPU, GPT-2, official and plain eager in `step` have glibc's own allocator settings."


def main() -> int:
    """Measure parts, print Markdown, write files if asked to, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all); {', '.join(OTHERS)}"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds, to see that everything works")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all cores)")
    parser.add_argument("--case", default="", help="only cases whose names contain this, such as 124M")
    parser.add_argument("--out", type=Path, help="folder for JSON, Markdown, PNG and SVG", metavar="FOLDER")
    asked = parser.parse_args()
    if unknown := [part for part in asked.parts if part not in PARTS + OTHERS]:
        parser.error(f"{', '.join(unknown)}: no such part; there are {', '.join(PARTS + OTHERS)}")
    try:
        settings = resolve_settings(asked.device, asked.quick, asked.threads, asked.case)
    except ValueError as error:
        parser.error(str(error))
    parts = {part: f"benchmarks.{part}" for part in asked.parts or PARTS}
    result = run(parts, settings, _tell, import_from_checkout())
    verdicts = judge(result.rows, settings.on_cuda)
    text = to_markdown(result, [targets_sheet(verdicts)] if verdicts else [], REMARK)
    print(text)
    if asked.out:
        content = {**result.to_json(), "verdicts": [verdict.to_json() for verdict in verdicts]}
        contents = {".json": (json.dumps(content, indent=1) + "\n").encode(), ".md": text.encode()}
        if has_chart(result.rows, verdicts):
            device = result.machine["device"]
            contents[".png"] = draw_chart(device, result.rows, verdicts, "png")
            contents[".svg"] = draw_chart(device, result.rows, verdicts, "svg")
        for path in write_files(asked.out, result.machine["device"], contents):
            print(path, file=sys.stderr)
    return 1 if result.failed else 0


def _tell(found: Found) -> None:
    words = found.words if isinstance(found, Note) else f"{found.case}, {found.name}"
    print(f"{found.part}: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
