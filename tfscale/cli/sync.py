"""The command `tfscale sync`, which sends the measurements in a runs folder to another tracker."""

from dataclasses import replace
from typing import Any

from tfscale.cli.common import Common
from tfscale.cli.console import answer, console, say
from tfscale.cli.streams import tell_error
from tfscale.config.compose import runs_dir
from tfscale.faults import InvalidInput, UserFault
from tfscale.plan.experiments import Recorded, experiment_of, recorded
from tfscale.stage.status import status_of
from tfscale.tracking.sync import Session
from tfscale.tracking.tracker import TRACKERS, Tracker, TrackingError

_NOT_SELECTING = ("runs=", "tracking.kind=", "extensions=")
"""Prefixes of the overrides that do not select a plan."""


def sync(common: Common, uri: str) -> int:
    """Send the measurements of the experiment that the overrides describe to the tracker at `uri`, and return the exit
    code. If no override selects a plan, the measurements of all experiments in the runs folder are sent."""
    composed = common.compose()
    runs = runs_dir(composed)
    selects = any(not text.startswith(_NOT_SELECTING) for text in common.overrides)
    experiments = [experiment_of(common.plan().known)] if selects else recorded(runs)
    if not experiments:
        raise UserFault([f"{runs}: contains no experiment; start one with `tfscale run`, or try runs=DIR"])
    try:
        tracker = TRACKERS.get(composed.tracking.kind)(runs, uri)
    except InvalidInput as error:
        faults = [replace(each, key="URI") if each.key == "tracking.uri" else each for each in error.faults]
        raise UserFault(faults) from error
    results = [_send(tracker, experiment) for experiment in experiments]
    if common.as_json:
        answer({"store": tracker.shown, "experiments": results})
    for result in results:
        if result["fault"]:
            tell_error(f"{result['fault']}\nRun the same command again to send the missing values.")
        elif not common.as_json:
            sent = f"{result['values_sent']:,} measurements sent" if result["values_sent"] else "no new measurements"
            say(f"{result['experiment']}: {result['done']} of {result['stages']} stages done; {sent}")
    return 1 if any(result["fault"] for result in results) else 0


def _send(tracker: Tracker, experiment: Recorded) -> dict[str, Any]:
    stages = {stage.key: stage for arm in experiment.arms for stage in arm.all_stages}
    states = [status_of(stage).state for stage in stages.values()]
    counts = {"stages": len(states), "done": states.count("done"), "not_begun": states.count("waiting")}
    values, fault = 0, None
    try:
        with console.status(f"{experiment.name} to {tracker.shown}"):
            values = Session(tracker, experiment.name).sync(experiment.arms, experiment.comparison)
    except TrackingError as error:
        fault = str(error)
    return {"experiment": experiment.name, "arms": [arm.name for arm in experiment.arms], **counts,
            "values_sent": values, "fault": fault}  # fmt: skip
