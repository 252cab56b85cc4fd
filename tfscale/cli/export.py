"""tfscale export: a stage for other libraries."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tfscale.cli.console import answer, say
from tfscale.config.compose import compose, runs_dir
from tfscale.faults import UserFault
from tfscale.stage.folder import find_stage


def export(
    name: str,
    to: Literal["hf"],
    out: Path,
    overrides: Sequence[str],
    config_dir: Path | None,
    as_json: bool = False,
) -> int:
    """Writes a finished stage in another form, of a chain its last one; returns the exit code."""
    from tfscale.cli.stages import CHAIN, stages_of
    from tfscale.interop.export import export as write
    from tfscale.interop.finished import open_finished

    assert to == "hf", "the only form that the command line lets through"
    try:
        if name == CHAIN:
            stage = stages_of(name, overrides, config_dir)[-1]
        else:
            stage = open_finished(find_stage(runs_dir(compose(overrides, config_dir)), name))
        write(stage, out)
    except (ValueError, OSError) as error:
        raise UserFault([str(error)]) from error
    answer({"stage": stage.folder.name, "to": to, "folder": out}) if as_json else say(str(out))
    return 0
