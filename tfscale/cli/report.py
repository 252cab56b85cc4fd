"""tfscale report: the comparison as one page of HTML."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from tfscale.analysis.page import page
from tfscale.analysis.records import stage_records
from tfscale.analysis.report import write_whole
from tfscale.cli.compare import compare_plan, keep, plan_with
from tfscale.cli.console import answer, say
from tfscale.cli.execute import catch_up, tracker_of
from tfscale.config.sharing import shareable_overrides, shareable_path, shareable_settings


def report(
    overrides: Sequence[str],
    baseline: str,
    config_dir: Path | None,
    as_json: bool = False,
    out: Path | None = None,
) -> int:
    """Write `report.html` beside the comparison's other files; returns the exit code.

    Args:
        out: the folder to write to, in place of that in the runs folder, which is only read then.
    """
    plan = plan_with(overrides, baseline, config_dir)
    comparison = compare_plan(plan)
    place = ["--config-dir", shareable_path(config_dir)] if config_dir else []
    arms = ["--baseline", baseline, "--run-missing"]
    command = shlex.join(["tfscale", "compare", *arms, *place, *shareable_overrides(overrides)])
    configuration = yaml.safe_dump(shareable_settings(asdict(plan.experiment)), sort_keys=False)

    def write(folder: Path) -> tuple[Path, ...]:
        content = page(comparison, stage_records(plan.arms), command, configuration)
        write_whole(folder / "report.html", content.encode())
        return (folder / "report.html",)

    (path,) = keep(plan, out, write)
    if out is None:
        catch_up(plan.known, tracker_of(plan.experiment))
    answer({"report": path}) if as_json else say(str(path))
    return 0
