"""Records of planned arms in the files experiments/<schedule>-<key>.json of the runs folder. Arms can be read from
these files without repeating the command that planned them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.faults import Fault, UserFault
from tfscale.files import read_object, write_json
from tfscale.plan.arms import GROUPS, Arm, rejoined
from tfscale.plan.plan import Plan
from tfscale.stage.folder import Stage
from tfscale.stage.spec import key_of, spec_from_dict, spec_to_dict
from tfscale.untrusted import check_fields, check_file_name

FORMAT = 1


@dataclass(frozen=True)
class Recorded:
    """A chain, and the baselines that have been trained or compared together with this chain."""

    name: str
    """Name of the schedule."""
    arms: tuple[Arm, ...]
    """All arms, the chain first. Replicates of an arm with different seeds are separate arms (`Arm.by_seed`)."""
    comparison: Path
    """Folder to which the comparison of the arms is written. The folder may not exist yet."""

    @property
    def joined(self) -> tuple[Arm, ...]:
        """Arms with the stages of all seeds, the chain first. If an arm was planned several times, only the latest
        version is included."""
        return rejoined(self.arms)


def experiment_of(plan: Plan) -> Recorded:
    """Return the arms of a plan as an experiment to record."""
    arms = tuple(replicate for arm in plan.arms for replicate in arm.by_seed())
    return Recorded(plan.experiment.schedule.name, arms, comparison_folder(plan))


def comparison_folder(plan: Plan) -> Path:
    """Return the folder to which the comparison of a plan is written. Plans whose chains differ, for example in the
    growth recipe or the budget, have different folders."""
    return plan.runs / "comparisons" / f"{plan.experiment.schedule.name}-{plan.chain.identity[-1].key}"


def record(plan: Plan) -> None:
    """Record the arms of a plan, in addition to arms that were planned earlier with the same chain."""
    planned = experiment_of(plan)
    path = plan.runs / "experiments" / f"{planned.comparison.name}.json"
    new = {_identity(arm) for arm in planned.arms}
    before = _read(plan.runs, path).arms if path.exists() else ()
    arms = (*planned.arms, *(arm for arm in before if _identity(arm) not in new))
    if arms != before:
        write_record(plan.runs, Recorded(planned.name, arms, planned.comparison))


def write_record(runs: Path, experiment: Recorded) -> None:
    path = runs / "experiments" / f"{experiment.comparison.name}.json"
    write_json(path, {"format": FORMAT, "name": experiment.name, "arms": [_to_dict(arm) for arm in experiment.arms]})


def recorded(runs: Path) -> list[Recorded]:
    """Return all experiments that are recorded in a runs folder. Raise UserFault with a fault for each file that is
    damaged or was written by another version of tfscale."""
    found: list[Recorded] = []
    faults: list[Fault] = []
    for path in sorted((runs / "experiments").glob("[!.]*.json")):
        try:
            found.append(_read(runs, path))
        except UserFault as fault:
            faults += fault.faults
    if faults:
        raise UserFault(faults)
    return found


def _identity(arm: Arm) -> tuple[str, str]:
    return arm.name, arm.key


def _to_dict(arm: Arm) -> dict[str, Any]:
    groups = {name: getattr(arm, name) for name in GROUPS}
    stages = {
        name: [{"size": stage.size, "spec": spec_to_dict(stage.spec)} for stage in group]
        for name, group in groups.items()
        if group
    }
    return {"name": arm.name, "title": arm.title, "kind": arm.kind, **stages}


def _read(runs: Path, path: Path) -> Recorded:
    try:
        values = read_object(path)
        if values["format"] != FORMAT:
            raise ValueError(f"the format is {values['format']}, but this version of tfscale reads {FORMAT}")
        arms = tuple(_arm(runs, arm) for arm in values["arms"])
        if not arms:
            raise ValueError("the file contains no arms")
        return Recorded(str(values["name"]), arms, runs / "comparisons" / path.stem)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserFault([f"{path}: the file is damaged ({error}). Move it to another folder."]) from error


def _arm(runs: Path, values: dict[str, Any]) -> Arm:
    groups = {name: tuple(_stage(runs, stage) for stage in values[name]) for name in GROUPS if name in values}
    return Arm(str(values["name"]), str(values["title"]), str(values["kind"]), **groups)


def _stage(runs: Path, values: dict[str, Any]) -> Stage:
    spec = spec_from_dict(values["spec"])
    check_fields(spec)
    key = key_of(spec)
    folder = f"{spec.label}-{key}"
    check_file_name(folder)
    return Stage(str(values["size"]), key, runs / "stages" / folder, spec)
