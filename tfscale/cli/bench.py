"""The command `tfscale bench`, which measures training speed and memory use on this machine."""

import json
from pathlib import Path
from typing import Literal

from tfscale.bench.rows import Found, Note
from tfscale.bench.run import run
from tfscale.bench.settings import resolve_settings
from tfscale.bench.tables import make_sheets, to_markdown, write_files
from tfscale.cli.common import Common
from tfscale.cli.console import FittedTable, answer, console, say
from tfscale.faults import UserFault, user_faults


def bench(
    common: Common, quick: bool, device: Literal["auto", "cpu", "cuda"], threads: int, case: str, out: Path | None
) -> int:
    """Measure the speed and memory use of training steps, print the results, and return the exit code, which is 1 if a
    measurement failed. If `out` is given, also write the results to this folder."""
    with user_faults():
        settings = resolve_settings(device, quick, threads, case)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserFault([f"--out {out}: cannot be created ({error.strerror}); name another folder"]) from error
    with console.status("measuring") as shown:

        def tell(found: Found) -> None:
            shown.update(f"measuring {found.part}")
            if isinstance(found, Note):
                say(f"{found.part}: {found.words}")

        result = run({"step": "tfscale.bench.step"}, settings, tell)
    for sheet in make_sheets(result.rows):
        rows = FittedTable(sheet.title, sheet.headings[: sheet.left], sheet.headings[sheet.left :])
        for cells in sheet.rows:
            rows.add_row(*cells)
        console.print(rows)
    if out is not None:
        text = json.dumps(result.to_json(), indent=1) + "\n"
        contents = {".json": text.encode(), ".md": to_markdown(result).encode()}
        say(*map(str, write_files(out, result.machine["device"], contents)))
    if common.as_json:
        answer(result.to_json())
    return 1 if result.failed else 0
