"""Verification of the checksums, the records of the stages, and the comparison in a submission."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tfscale.analysis.comparison import compare_arms
from tfscale.analysis.formats import to_document
from tfscale.faults import UserFault
from tfscale.files import read_object
from tfscale.plan.experiments import Recorded, recorded
from tfscale.stage.folder import is_done
from tfscale.stage.spec import STAGE_FILE, read_spec
from tfscale.submission.write import FORMAT, SUBMISSION_FILE, checksums
from tfscale.verify import verify_lineages, verify_stage
from tfscale.verify.folder import Check, guarded

TABLE_FILE = "table.json"
ROUNDING = 1e-6
"""Largest allowed relative or absolute difference between recorded and recomputed numbers. Sums are rounded differently
on different machines."""


def verify_submission(folder: Path) -> list[str]:
    """Return the faults of a submission, one sentence per fault. No file is written, and no file outside the folder is
    read.

    The verification shows that the records agree with each other and with the comparison. It cannot show that the
    stages were trained.
    """
    return list(dict.fromkeys(guarded(folder / SUBMISSION_FILE, _submission(folder))))


def _submission(folder: Path) -> Check[None]:
    record = read_object(folder / SUBMISSION_FILE)
    if record["format"] != FORMAT:
        what = f"the format is {record['format']}, but this version of tfscale reads {FORMAT}"
        yield f"{folder / SUBMISSION_FILE}: {what}"
        return
    links = [path for path in folder.rglob("*") if path.is_symlink()]
    if links:
        yield f"{links[0]}: is a symbolic link, but a submission contains only files"
        return
    yield from _files(folder, record["files"])
    try:
        [experiment] = recorded(folder)
    except UserFault as fault:
        yield str(fault)
        return
    faults = list(_stages(experiment, record["checkpoints"]))
    yield from faults or guarded(experiment.comparison / TABLE_FILE, _comparison(experiment))


def _files(folder: Path, listed: Mapping[str, str]) -> Check[None]:
    there = checksums(folder)
    for name in sorted(listed.keys() | there.keys()):
        if name not in there:
            yield f"{folder / name}: missing, but {SUBMISSION_FILE} lists it"
        elif name not in listed:
            yield f"{folder / name}: not listed in {SUBMISSION_FILE}"
        elif listed[name] != there[name]:
            yield f"{folder / name}: the content has changed since it was written (SHA-256 differs)"


def _stages(experiment: Recorded, checkpoints: bool) -> Check[None]:
    stages = list({stage.key: stage for arm in experiment.arms for stage in arm.all_stages}.values())
    for stage in stages:
        if not is_done(stage):
            yield f"{stage.path}: the stage is missing or not finished"
            continue
        stays = yield from guarded(stage.path / STAGE_FILE, _parent_is_here(stage.path))
        if stays:
            yield from verify_stage(stage, checkpoints)
    yield from verify_lineages(stages)


def _parent_is_here(stage_dir: Path) -> Check[bool]:
    """Yield a fault if the parent's folder is not next to the folder of the stage, and return True if there is no
    fault. This ensures that only files of the submission are read. If the parent's growth was rejected, the stage
    starts from the parent's parent, whose folder is then also checked."""
    spec = read_spec(stage_dir)
    parent = spec.parent_dir
    if parent is not None and Path(parent).parts[:-1] != ("..",):
        yield f"{stage_dir / STAGE_FILE}: parent_dir is {parent}, but it must be a folder in the submission"
        return False
    return (yield from _parent_is_here(stage_dir / parent)) if parent is not None and spec.returns else True


def _comparison(experiment: Recorded) -> Check[None]:
    """Yield a fault for each value in the comparison that does not follow from the records of the stages. If an arm has
    two stages of the same size and seed, yield only a fault that says so. Published results are not checked."""
    file = experiment.comparison / TABLE_FILE
    for arm in experiment.joined:
        if len({(stage.size, stage.spec.seed) for stage in arm.stages}) < len(arm.stages):
            yield f"{file}: the arm {arm.name} has two stages of the same size and seed"
            return
    there = read_object(file)
    follows = compare_arms(
        experiment.joined,
        there["title"],
        there["measure"],
        assumed_noise=there["assumed_noise_floor"],
        tuning_flops=there["tuning_flops"],
        primary=there["primary"] and (there["primary"]["size"], there["primary"]["arm"]),
        price=there["price"],
    )
    wanted = json.loads(json.dumps(to_document(follows))) | {"published": there["published"]}
    for name, value, computed in _differences("", there, wanted):
        yield f"{file}: {name} is {value}, but by the records of the stages it is {computed}"


def _differences(name: str, there: Any, wanted: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield each value that differs between two JSON documents, as the name of the value, the value in `there`, and the
    value in `wanted`. All names begin with `name`."""
    if isinstance(there, dict) and isinstance(wanted, dict):
        for key in sorted(there.keys() | wanted.keys()):
            yield from _differences(f"{name}.{key}".lstrip("."), there.get(key), wanted.get(key))
    elif isinstance(there, list) and isinstance(wanted, list) and len(there) == len(wanted):
        for number, (one, other) in enumerate(zip(there, wanted, strict=True)):
            yield from _differences(f"{name}[{number}]", one, other)
    elif isinstance(there, float) and isinstance(wanted, float | int):
        if not math.isclose(there, wanted, rel_tol=ROUNDING, abs_tol=ROUNDING):
            yield name, there, wanted
    elif there != wanted:
        yield name, there, wanted
