"""The files that a benchmark leaves."""

import json
import re
import sys
from pathlib import Path

from tfscale.bench.run import Result
from tfscale.bench.tables import markdown


def write(result: Result, folder: Path) -> list[Path]:
    """Writes bench_<device>.json, .md, .png and .svg; returns what was written. There is no figure without
    matplotlib, or where nothing in it was measured."""
    stem = folder / f"bench_{_name(result.machine['device'])}"
    content = (json.dumps(result.to_json(), indent=1) + "\n").encode()
    files = {stem.with_suffix(".json"): content, stem.with_suffix(".md"): markdown(result).encode()}
    files |= _figures(result, stem)
    folder.mkdir(parents=True, exist_ok=True)
    for path, each in files.items():
        path.write_bytes(each)
    return list(files)


def _figures(result: Result, stem: Path) -> dict[Path, bytes]:
    try:
        from tfscale.bench.chart import chart, has_chart

        if not has_chart(result):
            return {}
        return {stem.with_suffix(".png"): chart(result, "png"), stem.with_suffix(".svg"): chart(result, "svg")}
    except ImportError as error:
        print(f"no figure: {error.name} is not installed", file=sys.stderr)
        return {}


def _name(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")
