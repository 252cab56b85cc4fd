"""Command-line arguments that commands share (overrides, configuration folder, output format), and the decorator that
defines a command."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from tfscale.cli import completion

if TYPE_CHECKING:
    from tfscale.config.schema import Experiment
    from tfscale.faults import Fault
    from tfscale.interop.finished import FinishedStage
    from tfscale.plan.plan import Plan

CHAIN = "chain"
"""Special stage name that stands for the finished stages of the schedule's chain."""


@dataclass(frozen=True)
class Common:
    """Values of the command-line arguments that commands share."""

    overrides: Sequence[str] = ()
    config_dir: Path | None = None
    """Folder whose configuration files take precedence over those in conf/ in the working folder and over those that
    are installed with tfscale. If it is None, there is no such folder. If it is the path `none`, only the installed
    files are read."""
    as_json: bool = False
    """True if the command prints one JSON document on standard output."""

    def compose(self) -> "Experiment":
        """Return the experiment that the overrides describe, or raise UserFault with all faults of its settings."""
        from tfscale.config.compose import compose

        return compose(self.overrides, self.config_dir)

    def plan(self, ready: "Callable[[Experiment], Iterable[Fault | str]]" = lambda _: ()) -> "Plan":
        """Return the plan of the experiment that the overrides describe, or raise UserFault with all faults of the
        settings and the corpus. If the settings have faults, the error also contains the faults that `ready` returns
        for the experiment, so that the user sees all of them together; otherwise, `ready` is not called."""
        from tfscale.config.compose import draft
        from tfscale.config.origins import with_places
        from tfscale.faults import UserFault
        from tfscale.plan.checks import check_experiment
        from tfscale.plan.plan import corpus_faults, make_plan

        drafted = draft(self.overrides, self.config_dir).check(check_experiment)
        if drafted.faults:
            reads = ("data", "runs", "model.vocab_size")
            drafted = drafted.check(corpus_faults, reads).check(ready, (*reads, "launcher"))
        experiment = drafted.settled()
        try:
            return make_plan(experiment)
        except UserFault as fault:
            raise UserFault(with_places(fault.faults, self.overrides, self.config_dir)) from fault

    def finished_stages(self, names: str) -> "list[FinishedStage]":
        """Return the finished stages that `names` selects, or raise UserFault if a stage is not found or not finished.
        `names` contains stages separated by commas, each given by its folder or the beginning of its name or key, or is
        `chain` for all finished stages of the schedule's chain."""
        from tfscale.config.compose import runs_dir
        from tfscale.faults import UserFault, user_faults
        from tfscale.interop.finished import open_finished
        from tfscale.stage.folder import find_stage, is_done

        if names != CHAIN:
            runs = runs_dir(self.compose())
            with user_faults():
                return [open_finished(find_stage(runs, name)) for name in names.split(",")]
        plan = self.plan()
        folders = [stage.path for stage in plan.chain.stages if is_done(stage)]
        if not folders:
            name = plan.experiment.schedule.name
            raise UserFault([f"no stage of {name} is finished in {plan.runs}; train the chain with `tfscale run`"])
        return [open_finished(folder) for folder in folders]


def _leave_stdout(context: typer.Context, alone: bool) -> bool:
    if alone and not context.resilient_parsing:
        from tfscale.cli.console import leave_stdout

        leave_stdout(True)
        context.call_on_close(lambda: leave_stdout(False))
    return alone


def _shared(
    overrides: Annotated[
        list[str] | None,
        Argument(
            metavar="[OVERRIDES]...",
            help="Settings to override, such as schedule=progressive_1b4",
            autocompletion=completion.overrides,
        ),
    ] = None,
    as_json: Annotated[
        bool, Option("--json", callback=_leave_stdout, help="Print one JSON document on stdout, and progress on stderr")
    ] = False,
    config_dir: Annotated[
        Path | None,
        Option(
            help="Read configuration groups from this folder before conf/ and the shipped groups; none: read only the "
            "shipped groups",
            metavar="DIR",
        ),
    ] = None,
) -> Common:
    return Common(overrides or [], config_dir, as_json)


SHARED = inspect.signature(_shared).parameters


def command(
    group: typer.Typer, name: str | None = None, takes: Sequence[str] = tuple(SHARED)
) -> Callable[[Callable[..., int]], Callable[..., None]]:
    """Return a decorator that registers a function as a command of a Typer group. `name` is the name of the command, by
    default the name of the function. The command has the arguments of the function and the shared arguments named in
    `takes`. The function receives the values of the shared arguments as a `Common`, and must return the exit code."""

    def register(function: Callable[..., int]) -> Callable[..., None]:
        @wraps(function)
        def called(**given: Any) -> None:
            common = _shared(**{key: given.pop(key) for key in takes})
            raise typer.Exit(function(common, **given))

        _, *own = inspect.signature(function).parameters.values()
        parameters = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in (*own, *(SHARED[key] for key in takes))]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        group.command(name)(called)
        return called

    return register
