"""The command `tfscale status`, which shows the progress of stages and verifies their files."""

from typing import Any

from tfscale.cli.common import Common
from tfscale.cli.console import FittedTable, answer, console, say
from tfscale.cli.dashboard import signs
from tfscale.cli.view import watch
from tfscale.faults import UserFault
from tfscale.orchestrate.progress import Progress, Watch, overview
from tfscale.orchestrate.speed import finished_speeds, stage_speed
from tfscale.plan.plan import Plan
from tfscale.plan.rejection import rejections
from tfscale.stage.status import status_of
from tfscale.text import count


def status(common: Common, verify: bool = False, follow: bool = False) -> int:
    """Print the state of every stage, and return the exit code. With `verify`, verify the files of all stages instead,
    and print the problems. With `follow`, first show live progress until all stages are done, or until Ctrl-C."""
    if verify and follow:
        raise UserFault(["--verify and --watch cannot be combined; use one of them"])
    plan = common.plan()
    if verify:
        return _verify(plan, common.as_json)
    if follow:
        watch(plan, console)
    answer(states(plan)) if common.as_json else _show(plan)
    return 0


def states(plan: Plan) -> dict[str, Any]:
    """Return the progress of every stage and of the whole plan, as the document that the option --json prints."""
    looks = Watch(plan.stages).look()
    return {
        "schedule": plan.experiment.schedule.name,
        "done": all(look.status.state == "done" for look in looks.values()),
        "overview": overview(plan, looks, finished_speeds(plan.runs)),
        "arms": [
            {
                "name": arm.name,
                "title": arm.title,
                "stages": [{"role": arm.role(stage), **_state(looks[stage.key])} for stage in arm.all_stages],
            }
            for arm in plan.arms
        ],
    }


def _state(look: Progress) -> dict[str, Any]:
    stage, status = look.stage, look.status
    return {
        "size": stage.size,
        "seed": stage.spec.seed,
        "key": stage.key,
        "folder": stage.path,
        "state": status.state,
        "detail": status.detail,
        "tokens": status.tokens,
        "of_tokens": stage.spec.tokens,
        "flops": look.worked,
        "of_flops": look.work,
        "evaluation": status.last_eval,
        "tokens_per_second": look.tokens_per_second,
        "mfu": look.mfu,
        "memory": look.memory,
    }


def _show(plan: Plan) -> None:
    for arm in plan.arms:
        seed = ["seed"] if len(arm.seeds) > 1 else []
        rows = FittedTable(
            arm.title,
            ["size", *seed, "state", "stage"],
            ["tokens", "budget", "perplexity", "MFU"],
            spare=["MFU", "budget", "tokens", "stage"],
        )
        details = []
        for stage in arm.all_stages:
            state, speed = status_of(stage), stage_speed(stage.path)
            mfu = speed.mfu if speed else None
            rows.add_row(
                arm.label(stage),
                *([str(stage.spec.seed)] if seed else []),
                f"{signs(console)[state.state]} {state.state}",
                stage.path.name,
                count(state.tokens),
                count(stage.spec.tokens),
                f"{state.last_eval['perplexity']:.3f}" if state.last_eval else "",
                "" if mfu is None else f"{mfu:.0%}",
            )
            details += [f"{arm.label(stage)} {state.state}: {state.detail}"] if state.detail else []
        console.print(rows)
        say(*details)
    say(*rejections(plan.arms[0]), f"stages in {plan.runs / 'stages'}")


def _verify(plan: Plan, as_json: bool) -> int:
    from tfscale.verify import amount, set_aside, verify_plan  # imports torch, which `states` does not need

    with console.status("verifying files"):
        findings = verify_plan(plan)
    if as_json:
        answer({"sound": not findings, "findings": findings, "set_aside": set_aside(plan), "read": amount(plan)})
    elif findings:
        say(*set_aside(plan), *findings, f"problems found in {plan.runs / 'stages'}: {len(findings)}")
    else:
        read = amount(plan)
        say(
            *set_aside(plan),
            f"no problems found: {read.stages} of {len(plan.stages)} stages have begun and were verified, with "
            f"{read.checkpoints} checkpoints, {read.events:,} events and {read.bytes / 1e6:,.1f} MB of checkpoints and "
            "tokens",
        )
    return 1 if findings else 0
