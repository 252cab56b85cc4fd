"""tfscale run: the chain, and the arms of `baseline=`."""

from collections.abc import Sequence
from pathlib import Path

from tfscale.cli.console import answer, console
from tfscale.cli.execute import run_plan
from tfscale.cli.experiment import plan_of
from tfscale.cli.status import states
from tfscale.cli.summary import chain_table
from tfscale.config.schema import Experiment
from tfscale.faults import UserFault
from tfscale.orchestrate.launchers import missing
from tfscale.predict import files_amiss


def run(overrides: Sequence[str], config_dir: Path | None, as_json: bool = False) -> int:
    """Run a plan and return the exit code."""
    plan = plan_of(overrides, config_dir, _amiss)
    if plan.experiment.schedule.rehearse:
        from tfscale.cli.rehearse import rehearse

        return rehearse(plan, as_json)
    code, plan = run_plan(plan)
    if as_json:
        answer(states(plan))
    elif code == 0:
        try:
            console.print(chain_table(plan))
        except ValueError as error:
            raise UserFault([str(error)]) from error
    return code


def _amiss(experiment: Experiment) -> list[str]:
    """List the faults that can be found without a plan."""
    return [*files_amiss(experiment), *missing(experiment.launcher)]
