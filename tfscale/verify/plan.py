"""Verification of a whole plan: its stages, their cumulative costs, its corpora, and the folders of other stages in the
same runs folder."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tfscale.data.manifest import TOKENIZER_FILE, read_manifest
from tfscale.data.prepared import open_data
from tfscale.files import sha256_of
from tfscale.models.counts import flops
from tfscale.plan.plan import Plan
from tfscale.stage.events import METRICS_FILE, parse, read_lines
from tfscale.stage.folder import Stage, is_done, lineage
from tfscale.stage.result import DONE_FILE, read_result
from tfscale.stage.spec import CHECKPOINTS, STAGE_FILE, key_of, read_spec
from tfscale.totals import NO_COST
from tfscale.verify.folder import DAMAGE, Check, begun, damaged, guarded
from tfscale.verify.stage import verify_stage

ROUNDING = 1e-6
"""Largest relative difference between two sums of seconds that is attributed to rounding."""


@dataclass(frozen=True)
class Amount:
    """Amount of data that a verification reads: numbers of stages, checkpoints, bytes and events."""

    stages: int
    checkpoints: int
    bytes: int
    """Total size of the checkpoints and the corpora in bytes."""
    events: int


def verify_plan(plan: Plan) -> list[str]:
    """Return one sentence for each fault in the stages and corpora of a plan, and in the folders of other stages in the
    same runs folder. An unfinished stage is not a fault."""
    findings = [finding for stage in plan.stages for finding in verify_stage(stage)]
    findings += verify_lineages(plan.stages)
    for folder, fingerprint in _corpora(plan).items():
        findings += guarded(folder, _corpus(folder, fingerprint))
    findings += guarded(plan.runs / "stages", _unplanned(plan))
    return list(dict.fromkeys(findings))


def set_aside(plan: Plan) -> list[str]:
    """Return one sentence for each broken checkpoint that was renamed to `broken-*`. Such a checkpoint is not a
    fault."""
    return [
        f"{folder}: broken checkpoint, set aside and not used; it can be removed"
        for stage in plan.stages
        for folder in sorted((stage.path / CHECKPOINTS).glob("broken-*"))
    ]


def amount(plan: Plan) -> Amount:
    """Return the amount of data that `verify_plan` reads."""
    stages = [stage.path for stage in plan.stages if begun(stage.path)]
    checkpoints = [folder for path in stages for folder in (path / CHECKPOINTS).glob("step-*")]
    return Amount(
        stages=len(stages),
        checkpoints=len(checkpoints),
        bytes=sum(map(_bytes, [*checkpoints, *_corpora(plan)])),
        events=sum(len(parse(read_lines(path / METRICS_FILE))) for path in stages),
    )


def verify_lineages(stages: Sequence[Stage]) -> list[str]:
    """Return one sentence for each fault in the totals of finished stages. The totals must be the sums of the costs of
    a stage and all its ancestors. Only the last finished stage of each lineage is checked. `stages` must include all
    ancestors of each stage."""
    known = {stage.key: stage for stage in stages}
    done = [stage for stage in stages if is_done(stage)]
    parents = {stage.spec.parent for stage in done}
    last = [stage for stage in done if stage.key not in parents]
    return [finding for stage in last for finding in guarded(stage.path / DONE_FILE, _sums(known, stage))]


def _sums(stages: Mapping[str, Stage], last: Stage) -> Check[None]:
    descent = lineage(last, lambda stage: stages[stage.spec.parent] if stage.spec.parent else None)
    results = [read_result(stage.path) for stage in descent]
    tokens = sum(stage.spec.tokens for stage in descent)
    work = sum(stage.spec.tokens * flops(stage.spec.model).training for stage in descent)
    spent = sum((result.totals - result.before for result in results), NO_COST)
    totals = results[-1].totals
    for name, there, added, rounding in (
        ("tokens", totals.tokens, tokens, 0.0),
        ("FLOPs", totals.flops, work, 0.0),
        ("seconds", totals.seconds, spent.seconds, ROUNDING),
        ("device-seconds", totals.device_seconds, spent.device_seconds, ROUNDING),
    ):
        if there != added and not (rounding and math.isclose(there, added, rel_tol=rounding)):
            yield f"{last.path / DONE_FILE}: {there} {name}, but the {len(results)} stages up to here add up to {added}"


def _corpora(plan: Plan) -> dict[Path, str]:
    """Return the expected fingerprints of the corpora that the stages of a plan use, by the folder of the corpus.
    Stages that have not begun are ignored."""
    corpora = {}
    for stage in plan.stages:
        if not begun(stage.path):
            continue
        try:
            folder = stage.path / read_spec(stage.path).run.data_dir
        except DAMAGE:
            folder = stage.path / stage.spec.run.data_dir
        corpora[folder.resolve()] = stage.spec.data.fingerprint
    return corpora


def _corpus(folder: Path, fingerprint: str) -> Check[None]:
    manifest = read_manifest(folder)
    whole = True
    for shard in (*manifest.train.shards, *manifest.heldout.shards):
        file = folder / shard.file
        size = file.stat().st_size
        if size != shard.bytes:
            yield f"{file}: {size:,} bytes, but the manifest says {shard.bytes:,}"
            whole = False
        elif sha256_of(file) != shard.sha256:
            yield f"{file}: the content has changed since it was written (SHA-256 differs)"
            whole = False
    if sha256_of(folder / TOKENIZER_FILE) != manifest.tokenizer.sha256:
        yield f"{folder / TOKENIZER_FILE}: the content has changed since it was written (SHA-256 differs)"
    if whole:
        open_data(folder, fingerprint)


def _unplanned(plan: Plan) -> Check[None]:
    """Check the folders of stages that do not belong to the plan. The name of each folder must end with the key of the
    stage in the folder."""
    planned = {stage.path for stage in plan.stages}
    for folder in sorted((plan.runs / "stages").glob("[!.]*")):
        if folder in planned or not begun(folder):
            continue
        name = folder.name.rpartition("-")[2]
        try:
            key = key_of(read_spec(folder))
        except DAMAGE as error:
            yield damaged(folder / STAGE_FILE, error)
            continue
        if key != name:
            yield f"{folder / STAGE_FILE}: describes the stage {key}, but the folder is named {name}"


def _bytes(folder: Path) -> int:
    size = 0
    for file in folder.glob("*"):
        with suppress(FileNotFoundError):  # removed by a running stage
            size += file.stat().st_size
    return size
