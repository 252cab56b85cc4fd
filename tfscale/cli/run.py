"""The command `tfscale run`, which trains the chain and the arms of `baseline=`."""

from tfscale.cli.common import Common
from tfscale.cli.console import answer, console, say
from tfscale.cli.execute import run_plan
from tfscale.cli.rehearse import rehearse
from tfscale.cli.status import states
from tfscale.cli.summary import chain_table
from tfscale.config.schema import Experiment
from tfscale.faults import Fault, user_faults
from tfscale.orchestrate.launchers import missing
from tfscale.plan.rejection import rejections
from tfscale.predict import files_amiss


def run(common: Common) -> int:
    """Train or rehearse the plan that the overrides describe, print its results, and return the exit code."""
    plan = common.plan(_amiss)
    if plan.experiment.schedule.rehearse:
        return rehearse(plan, common.as_json)
    code, plan = run_plan(plan)
    if common.as_json:
        answer(states(plan))
    elif code == 0:
        with user_faults():
            console.print(chain_table(plan))
        for sentence in rejections(plan.arms[0]):
            say(f"note: {sentence}")
    return code


def _amiss(experiment: Experiment) -> list[Fault | str]:
    """Return the faults of an experiment that can be found before a plan is made."""
    return [*files_amiss(experiment), *missing(experiment.launcher)]
