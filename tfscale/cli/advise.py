"""The command `tfscale advise`, which recommends whether to grow a model, from which size, and how to divide a budget
among the sizes."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.advise.advice import Advice, Answer, Option, answer_to
from tfscale.advise.law import LEVEL, Law, interval
from tfscale.advise.laws import named_laws
from tfscale.advise.pilot import Pilot, plan_pilot
from tfscale.advise.question import Question, Recipe, ask
from tfscale.advise.residuals import residual_figure
from tfscale.advise.runs import Found, is_continued, read_runs
from tfscale.advise.words import amount, basis, difference, lacking, outside, recommendation, unused, warning
from tfscale.analysis.intervals import Array
from tfscale.analysis.style import FIGURE_KINDS, render
from tfscale.cli.common import Common
from tfscale.cli.compare import plan_with
from tfscale.cli.console import FittedTable, answer, as_json, console, say
from tfscale.cli.execute import allowance_of, run_plan
from tfscale.faults import user_faults
from tfscale.files import write_atomically
from tfscale.orchestrate.speed import finished_speeds
from tfscale.predict import Prediction, planned_machine, predict
from tfscale.stage.folder import Stage
from tfscale.text import count, duration, scientific


def advise(
    common: Common, sizes: Sequence[str], amounts: dict[str, float | None], run_missing: bool, out: Path | None
) -> int:
    """Print advice on whether to grow to the given sizes, by default the last size of the schedule, and return the exit
    code. If there are not enough finished runs for advice, print the runs to train or, with `run_missing`, train them
    first. `amounts` maps each of the options --flops, --hours and --dollars to its value; exactly one value must not be
    None. If `out` is given, also write the advice as JSON, and a figure of the residuals of the fitted laws, to this
    folder."""
    plan = plan_with(common, "tokenformer")
    machine, speeds = planned_machine(plan.experiment), finished_speeds(plan.runs)
    question = ask(Recipe.of_plan(plan), sizes, amounts, lambda spec: predict(spec, machine, speeds))
    if out is not None:
        with user_faults(OSError, about=f"--out {out}"):
            out.mkdir(parents=True, exist_ok=True)
    found = read_runs(plan.runs)
    answered = answer_to(question, found.runs)
    pilot = None if answered.advice else _pilot(question, found, common)
    if pilot and run_missing:
        allowance = allowance_of(plan.experiment)
        for each in pilot.plans:
            code, _ = run_plan(each, allowance)
            if code:
                return code
        found = read_runs(plan.runs)
        answered, pilot = answer_to(question, found.runs), None
    document = _json(question, found, answered, pilot)
    written = _write(out, document, named_laws(question, answered.laws)) if out else []
    if common.as_json:
        answer(document | {"files": written})
        return 0
    if answered.advice:
        _show(question, found, answered, answered.advice)
    elif pilot:
        _show_pilot(question, found, answered, pilot, common)
    else:
        say("still " + _lacks(answered))
    say(*map(str, written))
    return 0


def _write(out: Path, document: dict[str, Any], laws: dict[str, Law]) -> list[Path]:
    contents = {"advice.json": f"{as_json(document)}\n".encode()}
    if laws:
        figure = residual_figure(laws)
        contents |= {f"residuals.{kind}": render(figure, kind) for kind in FIGURE_KINDS}
    with user_faults(OSError, about=f"--out {out}"):
        for name, content in contents.items():
            write_atomically(out / name, content)
    return [out / name for name in contents]


def _show(question: Question, found: Found, answered: Answer, advice: Advice) -> None:
    console.print(_options(question, advice))
    say(f"{recommendation(question, advice)} {difference(question, advice)}")
    if advice.extrapolates:
        say(warning(advice))
    say(*basis(question, found, answered), prefix="- ")


def _options(question: Question, advice: Advice) -> FittedTable:
    sizes = ", ".join(target.size for target in question.targets)
    rows = FittedTable(
        f"{sizes} with {amount(question.budget.amount, question.budget.unit)}",
        ["option"],
        ["base tokens", *(f"tokens {target.size}" for target in question.targets), "FLOPs", "loss", "measured runs"],
        caption=f"loss: expected validation loss in nats per token, with the {LEVEL:.0%} interval of a single run",
        spare=["FLOPs", "measured runs"],
    )
    for option in advice.options:
        around = interval(option.runs.mean(axis=1))
        rows.add_row(
            option.title,
            count(option.base_tokens) if option.base else "",
            *map(count, option.tokens),
            scientific(option.flops),
            f"{option.loss:.3f} [{around.low:.3f}, {around.high:.3f}]",
            outside(option.beyond),
        )
    return rows


def _lacks(answered: Answer) -> str:
    return "\n- ".join(["not enough data:", *lacking(answered.laws)])


def _show_pilot(question: Question, found: Found, answered: Answer, pilot: Pilot, common: Common) -> None:
    say(_lacks(answered))
    console.print(_pilot_stages(pilot))
    cost, speeds = _pilot_cost(question, pilot), [prediction.seconds for _, prediction in pilot.left]
    time = f", and take {duration(sum(filter(None, speeds)))} one after another" if None not in speeds else ""
    share = cost / question.budget.amount
    say(f"These stages cost {amount(cost, question.budget.unit)}, {share:.0%} of the budget{time}. To train them:")
    say(f"  {_command(question, common)}")
    say(*unused(found), prefix="note: ")


def _pilot_stages(pilot: Pilot) -> FittedTable:
    rows = FittedTable(
        f"{len(pilot.left)} stages to run", ["model", "stage"], ["number", "tokens", "FLOPs"], spare=["FLOPs"]
    )
    groups: dict[tuple[str, str], list[Prediction]] = {}
    for stage, prediction in pilot.left:
        groups.setdefault((stage.spec.label, _kind(stage)), []).append(prediction)
    for names, group in groups.items():
        tokens = sorted(each.spec.tokens for each in group)
        span = f"{count(tokens[0])} to {count(tokens[-1])}"
        rows.add_row(*names, str(len(group)), span, scientific(sum(each.flops for each in group)))
    return rows


def _kind(stage: Stage) -> str:
    if stage.spec.growth is None:
        return "from scratch"
    return "branch" if is_continued(stage.spec) else "grown"


def _pilot(question: Question, found: Found, common: Common) -> Pilot:
    shaped = all(size.transformer is not None for size in question.recipe.sizes)
    return plan_pilot(question, plan_with(common, "tokenformer,transformer" if shaped else "tokenformer"), found.runs)


def _command(question: Question, common: Common) -> str:
    option = {"FLOPs": "--flops", "device-hours": "--hours", "dollars": "--dollars"}[question.budget.unit]
    sizes = [word for target in question.targets for word in ("--size", target.size)]
    place = ["--config-dir", str(common.config_dir)] if common.config_dir else []
    budget = [option, f"{question.budget.amount:g}"]
    return shlex.join(["tfscale", "advise", *common.overrides, *sizes, *budget, *place, "--run-missing"])


def _pilot_cost(question: Question, pilot: Pilot) -> float:
    return sum(question.price(stage.spec).amount * stage.spec.tokens for stage, _ in pilot.left)


def _json(question: Question, found: Found, answered: Answer, pilot: Pilot | None) -> dict[str, Any]:
    advice = answered.advice
    document: dict[str, Any] = {
        "targets": [target.size for target in question.targets],
        "budget": question.budget,
        "enough_data": advice is not None,
        "laws": _laws_json(question, answered),
        "lacking": answered.laws.lacking,
        "observed": answered.observed,
        "unused": found.unused,
        "assumptions": basis(question, found, answered),
    }
    if advice:
        document |= {
            "decision": advice.decision,
            "difference": _spread(advice.difference),
            "saving": _spread(advice.saving),
            "beyond": advice.beyond,
            "warning": warning(advice) if advice.extrapolates else None,
            "options": [_option_json(option) for option in advice.options],
        }
    if pilot:
        stages = [
            {"key": stage.key, "label": stage.spec.label, "tokens": stage.spec.tokens, "flops": prediction.flops}
            for stage, prediction in pilot.left
        ]
        document["pilot"] = {"stages": stages, "cost": _pilot_cost(question, pilot)}
    return document


def _option_json(option: Option) -> dict[str, Any]:
    names = ("title", "base", "base_tokens", "tokens", "flops", "beyond")
    losses = [_spread(option.runs[:, place]) for place in range(option.runs.shape[1])]
    return {name: getattr(option, name) for name in names} | {"losses": losses}


def _laws_json(question: Question, answered: Answer) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "variables": list(law.measured.names),
            "runs": len(law.measured.losses),
            "irreducible": law.irreducible,
            "coefficients": law.parameters[1:].tolist(),
            "noise": law.noise,
        }
        for name, law in named_laws(question, answered.laws).items()
    ]


def _spread(draws: Array) -> dict[str, float]:
    return {"median": float(np.median(draws)), **asdict(interval(draws))}
