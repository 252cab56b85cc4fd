"""tfscale export: a stage for other libraries."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tfscale.cli.experiment import say
from tfscale.config.compose import compose, runs_dir
from tfscale.faults import UserFault
from tfscale.schedule.ledger import find_stage


def export(name: str, to: Literal["hf"], out: Path, overrides: Sequence[str], config_dir: Path | None) -> int:
    """Writes a finished stage in another form; returns the exit code."""
    from tfscale.interop.export import export as write
    from tfscale.interop.finished import open_finished

    assert to == "hf", "the only form that the command line lets through"
    runs = runs_dir(compose(overrides, config_dir))
    try:
        write(open_finished(find_stage(runs, name)), out)
    except (ValueError, OSError) as error:
        raise UserFault([str(error)]) from error
    say(str(out))
    return 0
