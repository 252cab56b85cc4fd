"""Definition of the `tfscale` command line. The code of a command is imported when the command is used, so that --help
imports neither torch nor MLflow."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from tfscale.children import QUIET
from tfscale.cli import completion
from tfscale.cli.apps import data_app, stage_app, store_app
from tfscale.cli.common import Common, command
from tfscale.cli.streams import exit_code, in_words, open_streams
from tfscale.faults import Fault, UserFault
from tfscale.host import exit_quickly

# Libraries that commands import later must not send telemetry.
os.environ.update({**QUIET, **os.environ})

app = typer.Typer(
    name="tfscale",
    help="Train a chain of growing TokenFormers, compare the chain with matched baselines, and plot perplexity over "
    "cumulative compute.\n\nOverrides use the syntax of Hydra: schedule=progressive_1b4 growth=exact optim.lr=3e-4",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(stage_app)
app.add_typer(data_app, name="data")
app.add_typer(store_app, name="store")

Baseline = Annotated[
    str,
    Option(
        help="Compare with these baselines: names of the baseline group, separated by commas",
        autocompletion=completion.baselines,
    ),
]
Out = Annotated[
    Path | None,
    Option(
        help="Write to this folder, and only read the runs folder [default: comparisons/ in the runs folder]",
        metavar="DIR",
    ),
]


@command(app)
def run(common: Common) -> int:
    """Train the chain of a schedule, stage by stage. Finished stages are never trained again."""
    from tfscale.cli.run import run

    return run(common)


@command(app)
def plan(
    common: Common,
    why: Annotated[
        str | None,
        Option(
            help="Only show why the stage of this size, key or folder is trained, and which stages are similar",
            metavar="STAGE",
        ),
    ] = None,
) -> int:
    """Show the stages of a plan and their predicted cost. The cost is memory, time, energy and price. No file is
    written."""
    if why is not None:
        from tfscale.cli.why import why as explain

        return explain(common, why)
    from tfscale.cli.plan import plan

    return plan(common)


@command(app)
def compare(
    common: Common,
    baseline: Baseline = "scratch",
    run_missing: Annotated[bool, Option("--run-missing", help="Train missing stages before the comparison")] = False,
    out: Out = None,
    submit: Annotated[
        Path | None,
        Option(
            help="Also write the records of all stages and the comparison to this folder, which another person can "
            "verify; it must not exist",
            metavar="DIR",
        ),
    ] = None,
    checkpoints: Annotated[
        bool, Option("--checkpoints", help="Include the final checkpoints in the folder of --submit")
    ] = False,
) -> int:
    """Compare the chain with baselines at equal cost. Figures, a table and verdicts are written."""
    from tfscale.cli.compare import compare

    if checkpoints and submit is None:
        raise UserFault([Fault("--checkpoints", None, "must be combined with --submit DIR")])
    return compare(common, baseline, run_missing, out, submit, checkpoints)


@command(app, takes=("as_json",))
def verify(
    common: Common,
    folder: Annotated[Path, Argument(help="Folder that `tfscale compare --submit` wrote", metavar="DIR")],
) -> int:
    """Verify a folder that `tfscale compare --submit` wrote. The checksums, the records of the stages and the
    comparison are checked."""
    from tfscale.cli.verify import verify

    return verify(common, folder)


@command(app)
def report(common: Common, baseline: Baseline = "scratch", out: Out = None) -> int:
    """Write the comparison as one self-contained HTML page. The page has the figures, tables, verdicts and
    configurations."""
    from tfscale.cli.compare import report

    return report(common, baseline, out)


@command(app)
def advise(
    common: Common,
    size: Annotated[
        list[str] | None,
        Option(
            help="Reach this size of the schedule; may be repeated, and the sizes then share the budget [default: the "
            "last size]",
            metavar="SIZE",
        ),
    ] = None,
    flops: Annotated[float | None, Option(help="Spend this number of model FLOPs, such as 1e13")] = None,
    hours: Annotated[float | None, Option(help="Spend this number of device-hours")] = None,
    dollars: Annotated[float | None, Option(help="Spend this amount at device.price per device-hour")] = None,
    run_missing: Annotated[
        bool, Option("--run-missing", help="If there are not enough runs, train those that are missing")
    ] = False,
    out: Annotated[
        Path | None,
        Option(
            help="Write the answer as JSON and a figure of the residuals of the laws to this folder", metavar="FOLDER"
        ),
    ] = None,
) -> int:
    """Advise whether to grow to a size or train it from scratch. The advice is for a budget, and is based on laws
    fitted to the finished runs."""
    from tfscale.cli.advise import advise

    return advise(common, size or [], {"--flops": flops, "--hours": hours, "--dollars": dollars}, run_missing, out)


@command(app)
def tune(
    common: Common,
    arm: Annotated[
        list[str] | None,
        Option(
            help="Tune this arm: progressive, an arm of baseline=, or all; may be repeated [default: all]",
            metavar="ARM",
        ),
    ] = None,
    factors: Annotated[
        str, Option(help="Try these multiples of the current learning rates first")
    ] = "0.0625,0.125,0.25,0.5,1,2,4,8,16",
    ratios: Annotated[
        str | None,
        Option(help="Also choose optim.embedding_ratio from these values, such as 0.1,0.3,1 [default: not tuned]"),
    ] = None,
    rungs: Annotated[
        int, Option(help="Use this many rungs of successive halving; 1: train every candidate with all tokens")
    ] = 3,
    reduction: Annotated[
        int, Option(help="Divide the number of candidates and multiply the tokens by this number from rung to rung")
    ] = 3,
    refine: Annotated[
        bool, Option("--refine", help="Also try rates that differ from the best rate by a factor of sqrt(2)")
    ] = False,
    further: Annotated[
        int, Option(help="Try at most this many more candidates per rung while the best one is at an edge of the range")
    ] = 3,
    seeds: Annotated[int, Option(help="Train this many runs per candidate and compare their mean losses")] = 1,
    write: Annotated[
        str | None,
        Option(
            help="Write the chosen rates to conf/schedule/NAME.yaml, and the rates of single baseline arms to "
            "conf/baseline/NAME.yaml",
            metavar="NAME",
        ),
    ] = None,
) -> int:
    """Choose the learning rates of the arms by sweeps. The validation tokens are ones that no comparison uses."""
    from tfscale.cli.tune import Asked, tune

    asked = Asked(tuple(arm or ["all"]), factors, further, seeds, write, rungs, reduction, refine, ratios)
    return tune(common, asked)


@command(app)
def status(
    common: Common,
    verify: Annotated[bool, Option("--verify", help="Verify all recorded files and report problems")] = False,
    watch: Annotated[
        bool, Option("--watch", help="Show live progress until all stages are done, or until Ctrl-C")
    ] = False,
) -> int:
    """Show the progress of each stage, or verify all files. With --verify, checkpoints, measurements,
    lineages and corpora are checked."""
    from tfscale.cli.status import status

    return status(common, verify, watch)


@command(app)
def sync(
    common: Common,
    uri: Annotated[str, Argument(help="URI of a tracker, such as http://HOST or sqlite:///FILE for MLflow")],
) -> int:
    """Send measurements to another tracker. The measurements are those in the runs folder that the tracker does not
    have yet. If there are overrides other than runs=, tracking.kind= and extensions=, only measurements of the plan
    that they describe are sent."""
    from tfscale.cli.sync import sync

    return sync(common, uri)


@command(app, "list", takes=("as_json", "config_dir"))
def list_options(
    common: Common,
    kind: Annotated[
        str,
        Argument(
            help="Configuration group, such as schedules, growths, data or devices [default: all groups]",
            autocompletion=completion.kinds,
        ),
    ] = "",
) -> int:
    """List the options of a configuration group, your own and shipped."""
    from tfscale.cli.list_ import list_

    return list_(common, kind)


@command(app)
def doctor(
    common: Common,
    device: Annotated[
        Literal["cpu", "cuda"] | None,
        Option(
            help="Also compute and train on this device for up to two minutes, and check losses, gradients, resuming "
            "and memory [default: not checked]"
        ),
    ] = None,
) -> int:
    """Check what this machine can run, and suggest fixes for problems."""
    from tfscale.cli.doctor import doctor

    return doctor(common, device)


@command(app, takes=("overrides", "config_dir"))
def ui(
    common: Common, port: Annotated[int, Option(help="Serve on this port of localhost", min=1, max=65535)] = 5000
) -> int:
    """Serve the MLflow page on localhost, with all runs and curves. Other trackers have their own pages."""
    from tfscale.cli.ui import ui

    return ui(common, port)


@command(app, takes=("as_json",))
def bench(
    common: Common,
    quick: Annotated[
        bool, Option("--quick", help="Use small sizes and few rounds, to check that everything works")
    ] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], Option(help="Benchmark this device")] = "auto",
    threads: Annotated[int, Option(help="Use this many CPU threads [default: all cores]", min=0)] = 0,
    case: Annotated[str, Option(help="Measure only cases whose names contain this text, such as 124M")] = "",
    out: Annotated[
        Path | None, Option(help="Write bench_<device>.json and bench_<device>.md to this folder", metavar="FOLDER")
    ] = None,
) -> int:
    """Measure training speed and memory use on this machine. Speeds are relative to its peak of matrix products."""
    from tfscale.cli.bench import bench

    return bench(common, quick, device, threads, case, out)


def main() -> None:
    """Run the command line, print errors as messages, and exit."""
    completion.skip_equals_sign()
    open_streams()
    exit_quickly(exit_code(in_words(lambda: app(prog_name="tfscale"))))
