"""The command `tfscale export`, which writes a stage in the format of another library."""

from pathlib import Path
from typing import Literal

from tfscale.cli.common import CHAIN, Common
from tfscale.cli.console import answer, say
from tfscale.config.compose import runs_dir
from tfscale.faults import user_faults
from tfscale.interop.export import export as write
from tfscale.interop.finished import open_finished, with_groups
from tfscale.stage.folder import find_stage


def export(common: Common, name: str, to: Literal["hf"], out: Path, groups: int | None) -> int:
    """Write a finished stage to the folder `out` in the format of another library, and return the exit code. If `name`
    is `chain`, the last finished stage of the chain is written."""
    assert to == "hf", "the only format that the command line accepts"
    with user_faults(ValueError, OSError):
        if name == CHAIN:
            stage = common.finished_stages(name)[-1]
        else:
            stage = open_finished(find_stage(runs_dir(common.compose()), name))
        [stage] = with_groups([stage], groups)
        write(stage, out)
    answer({"stage": stage.folder.name, "to": to, "folder": out}) if common.as_json else say(str(out))
    return 0
