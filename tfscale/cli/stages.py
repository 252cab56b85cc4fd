"""Lookup of finished stages by the names that a user passes on the command line."""

from tfscale.cli.common import Common
from tfscale.config.compose import runs_dir
from tfscale.faults import UserFault, user_faults
from tfscale.interop.finished import FinishedStage, open_finished
from tfscale.stage.folder import find_stage, is_done

CHAIN = "chain"
"""Name that selects all finished stages of the schedule's chain."""


def stages_of(common: Common, names: str) -> list[FinishedStage]:
    """Return the finished stages that `names` selects: names separated by commas, or `chain` for all finished stages of
    the schedule's chain."""
    if names == CHAIN:
        plan = common.plan()
        folders = [stage.path for stage in plan.chain.stages if is_done(stage)]
        if not folders:
            name = plan.experiment.schedule.name
            raise UserFault([f"no stage of {name} is finished in {plan.runs}; train the chain with `tfscale run`"])
        return [open_finished(folder) for folder in folders]
    runs = runs_dir(common.compose())
    with user_faults():
        return [open_finished(find_stage(runs, name)) for name in names.split(",")]
