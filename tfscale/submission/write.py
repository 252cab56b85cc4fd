"""Functions that write a submission, which is a folder with the records of a comparison."""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from tfscale.faults import Fault, UserFault, user_faults
from tfscale.files import new_folder, read_object, sha256_of_all, write_json
from tfscale.plan.experiments import Recorded, experiment_of, write_record
from tfscale.plan.plan import Plan
from tfscale.stage import how
from tfscale.stage.environment import ENVIRONMENT_FILE
from tfscale.stage.evaluations import EVALUATIONS_FILE
from tfscale.stage.events import METRICS_FILE, parse, read_lines
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.growth_record import GROWTH_FILE, IMPORT_FILE
from tfscale.stage.heldout import HELDOUT_FILE
from tfscale.stage.result import DONE_FILE, read_result
from tfscale.stage.spec import CHECKPOINTS, StageSpec, read_spec, spec_from_dict, spec_to_dict, write_spec

FORMAT = 1
SUBMISSION_FILE = "submission.json"
_FILES = (GROWTH_FILE, IMPORT_FILE, HELDOUT_FILE, EVALUATIONS_FILE, DONE_FILE)
"""Names of the files that are copied unchanged from a stage folder, if they exist."""


def submission_faults(stages: Iterable[Stage], out: Path) -> list[Fault]:
    """Return the faults that prevent a submission from being written. The folder `out` must not exist, and all `stages`
    must be finished."""
    faults = [Fault("--submit", out, "must not exist", "another folder")] if out.exists() else []
    unfinished = ", ".join(stage.path.name for stage in stages if not is_done(stage))
    if unfinished:
        faults.append(Fault("--submit", out, f"needs these unfinished stages: {unfinished}", "--run-missing"))
    return faults


def write_submission(plan: Plan, files: Sequence[Path], command: str, out: Path, checkpoints: bool = False) -> None:
    """Write the submission of a plan to the folder `out`. Fields that describe how or where a stage was run
    (`tfscale.stage.how`) are omitted.

    Args:
        files: files of the comparison, such as its tables and figures.
        command: command line that trains and compares the arms.
        checkpoints: True to include the final checkpoint of each stage.

    Raises:
        UserFault: `submission_faults` returns faults, or a file of a stage cannot be read.
        OSError: the folder cannot be written. No partial files are left.
    """
    if faults := submission_faults(plan.stages, out):
        raise UserFault(faults)
    experiment = experiment_of(plan)
    with user_faults(), new_folder(out) as aside:
        for stage in plan.stages:
            _write_stage(stage, aside / "stages" / stage.path.name, checkpoints)
        arms = tuple(
            arm.map_groups(lambda stages: [replace(stage, spec=_shareable(stage.spec)) for stage in stages])
            for arm in experiment.arms
        )
        write_record(aside, Recorded(experiment.name, arms, experiment.comparison))
        (compared := aside / "comparisons" / experiment.comparison.name).mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, compared / file.name)
        record = {"format": FORMAT, "tfscale": version("tfscale"), "command": command, "checkpoints": checkpoints}
        write_json(aside / SUBMISSION_FILE, {**record, "files": checksums(aside)})


def checksums(folder: Path) -> dict[str, str]:
    """Return a mapping from the relative path of each file in a folder and its subfolders to the SHA-256 digest of the
    file. The file submission.json is omitted."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / SUBMISSION_FILE]
    names = [path.relative_to(folder).as_posix() for path in files]
    return dict(zip(names, sha256_of_all(files), strict=True))


def _write_stage(stage: Stage, folder: Path, checkpoints: bool) -> None:
    folder.mkdir(parents=True)
    write_spec(folder, _shareable(read_spec(stage.path)))
    for name in _FILES:
        if (stage.path / name).exists():
            shutil.copyfile(stage.path / name, folder / name)
    if (stage.path / ENVIRONMENT_FILE).exists():
        environment = read_object(stage.path / ENVIRONMENT_FILE)
        write_json(folder / ENVIRONMENT_FILE, how.without(environment, how.ENVIRONMENT))
    events = parse(read_lines(stage.path / METRICS_FILE))
    lines = "".join(json.dumps(how.without(event, how.EVENT)) + "\n" for event in events)
    (folder / METRICS_FILE).write_text(lines, encoding="utf-8")
    if checkpoints:
        final = Path(CHECKPOINTS, read_result(stage.path).checkpoint)
        shutil.copytree(stage.path / final, folder / final)


def _shareable(spec: StageSpec) -> StageSpec:
    """Return a copy of a spec in which the fields that describe how or where the stage is run have their default
    values. The label is kept, and the paths of the parent and the corpus are replaced by relative paths."""
    values = how.without(spec_to_dict(spec), how.STAGE)
    parent = None if spec.parent_dir is None else f"../{Path(spec.parent_dir).name}"
    data = f"../../data/{spec.data.fingerprint}"
    return spec_from_dict({**values, "label": spec.label, "parent_dir": parent, "run": {"data_dir": data}})
