"""tfscale bench: speed and memory, side by side in one run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tfscale.bench.files import write
from tfscale.bench.rows import Found, Note
from tfscale.bench.run import run
from tfscale.bench.settings import settings_of
from tfscale.bench.tables import TARGETS, sheets
from tfscale.bench.worker import OTHERS, PARTS
from tfscale.cli.console import answer, console, say
from tfscale.cli.table import table
from tfscale.faults import UserFault


def bench(
    parts: Sequence[str],
    quick: bool,
    device: Literal["auto", "cpu", "cuda"],
    threads: int,
    case: str,
    out: Path | None,
    as_json: bool,
) -> int:
    """Measures the parts, shows them and writes what was asked for; returns the exit code.

    Raises:
        UserFault: no such part, or no such device.
    """
    known = PARTS + OTHERS
    faults = [f"{part}: no such part; there are {', '.join(known)}" for part in parts if part not in known]
    try:
        settings = settings_of(device, quick, threads, case)
    except ValueError as error:
        faults.append(str(error))
    if faults:
        raise UserFault(faults)
    if out is not None:
        _make(out)
    with console.status("measuring") as shown:

        def tell(found: Found) -> None:
            shown.update(f"measuring {found.part}")
            if isinstance(found, Note):
                say(f"{found.part}: {found.words}")

        result = run(parts or PARTS, settings, tell)
    for sheet in sheets(result):
        spare = () if sheet.title == TARGETS else None
        rows = table(sheet.title, sheet.headings[: sheet.left], sheet.headings[sheet.left :], spare=spare)
        for cells in sheet.rows:
            rows.add_row(*cells)
        console.print(rows)
    for path in write(result, out) if out else []:
        say(str(path))
    if as_json:
        answer(result.to_json())
    return 1 if result.broken else 0


def _make(out: Path) -> None:
    """Make the folder of the files, before anything is measured for them."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserFault([f"--out {out}: cannot be made: {error.strerror}; name another folder"]) from error
