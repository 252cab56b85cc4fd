"""python -m tfscale.bench: `tfscale bench` where only torch, numpy and safetensors are installed."""

import argparse
import json
import sys
from pathlib import Path

from tfscale.bench.files import write
from tfscale.bench.rows import Found, Note
from tfscale.bench.run import run
from tfscale.bench.settings import settings_of
from tfscale.bench.tables import markdown
from tfscale.bench.worker import OTHERS, PARTS


def main() -> int:
    """Measures, prints Markdown and writes what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tfscale.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} [default: all]; {OTHERS[0]}")
    parser.add_argument(
        "--quick", action="store_true", help="see that everything works; measures nothing worth keeping"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU [default: its cores]")
    parser.add_argument("--case", default="", help="only cases whose names contain this, such as 124M")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.add_argument("--out", type=Path, help="folder for JSON, Markdown, PNG and SVG", metavar="FOLDER")
    asked = parser.parse_args()
    if unknown := [part for part in asked.parts if part not in PARTS + OTHERS]:
        parser.error(f"{', '.join(unknown)}: no such part; there are {', '.join(PARTS + OTHERS)}")
    try:
        settings = settings_of(asked.device, asked.quick, asked.threads, asked.case)
    except ValueError as error:
        parser.error(str(error))
    result = run(asked.parts or PARTS, settings, _tell)
    print(json.dumps(result.to_json(), indent=1) if asked.json else markdown(result))
    for path in write(result, asked.out) if asked.out else []:
        print(path, file=sys.stderr)
    return 1 if result.broken else 0


def _tell(found: Found) -> None:
    words = found.words if isinstance(found, Note) else f"{found.case}, {found.name}"
    print(f"{found.part}: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
