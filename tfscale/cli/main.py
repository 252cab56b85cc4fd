"""The `tfscale` command. Modules of commands are imported on use, so that --help needs neither torch nor MLflow."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from tfscale.children import QUIET
from tfscale.cli import completion, errors, streams
from tfscale.cli.common import STAGE, Baseline, Common, Out, Stage, Stages, command

# Libraries that commands import later must not send telemetry.
os.environ.update({**QUIET, **os.environ})

app = typer.Typer(
    name="tfscale",
    help="Progressive scaling of language models: train a chain of growing TokenFormers, compare it with matched "
    "baselines, and draw what each token cost.\n\nOverrides are written as Hydra writes them: "
    "schedule=progressive_1b4 growth=exact optim.lr=3e-4",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(help="Prepare corpora, and list them.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")


@command(app)
def run(common: Common) -> int:
    """Train the chain of a schedule, stage by stage. Finished stages are never trained again."""
    from tfscale.cli.run import run

    return run(common)


@command(app)
def plan(common: Common) -> int:
    """Show what would run and what it would cost: memory, time, energy, money. Writes nothing."""
    from tfscale.cli.plan import plan

    return plan(common)


@command(app)
def compare(
    common: Common,
    baseline: Baseline = "scratch",
    run_missing: Annotated[bool, typer.Option("--run-missing", help="train the stages that are missing")] = False,
    out: Out = None,
) -> int:
    """Compare the chain with baselines at equal cost: figures, table, verdicts."""
    from tfscale.cli.compare import compare

    return compare(common, baseline, run_missing, out)


@command(app)
def report(common: Common, baseline: Baseline = "scratch", out: Out = None) -> int:
    """Write the comparison as one HTML page that needs no network: figures, tables, verdicts, configurations."""
    from tfscale.cli.compare import report

    return report(common, baseline, out)


@command(app)
def tune(
    common: Common,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="arm to tune: progressive, an arm of baseline=, or all; may be repeated [default: all]", metavar="ARM"
        ),
    ] = None,
    factors: Annotated[
        str, typer.Option(help="multipliers of the current learning rates to try first")
    ] = "0.0625,0.125,0.25,0.5,1,2,4,8,16",
    ratios: Annotated[
        str | None,
        typer.Option(help="also choose optim.embedding_ratio among these, such as 0.1,0.3,1 [default: keep it]"),
    ] = None,
    rungs: Annotated[int, typer.Option(help="rungs of successive halving; 1: train every candidate in full")] = 3,
    reduction: Annotated[
        int, typer.Option(help="from rung to rung, this many times fewer candidates and more tokens")
    ] = 3,
    refine: Annotated[
        bool, typer.Option("--refine", help="also try sqrt(2) above and below the best learning rate")
    ] = False,
    further: Annotated[
        int, typer.Option(help="most candidates to try beyond these, while the best one is at the edge")
    ] = 3,
    seeds: Annotated[int, typer.Option(help="number of runs per learning rate; their mean loss counts")] = 1,
    write: Annotated[
        str | None,
        typer.Option(
            help="write the chosen rates to conf/schedule/NAME.yaml, and those of arms to conf/baseline/NAME.yaml",
            metavar="NAME",
        ),
    ] = None,
) -> int:
    """Choose the learning rates of the arms by small sweeps, on validation text that no comparison reads."""
    from tfscale.cli.tune import Asked, tune

    asked = Asked(tuple(arm or ["all"]), factors, further, seeds, write, rungs, reduction, refine, ratios)
    return tune(common, asked)


@command(app)
def status(
    common: Common,
    verify: Annotated[bool, typer.Option("--verify", help="read everything again and report what is wrong")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="show progress live until all is done, or Ctrl-C")] = False,
) -> int:
    """Show how far each stage is. With --verify: check checkpoints, measurements, lineage and corpus."""
    from tfscale.cli.status import status

    return status(common, verify, watch)


@command(app)
def grow(
    common: Common,
    stage: Stage,
    to: Annotated[Path, typer.Option(help="folder to create for the grown checkpoint, not there yet", metavar="DIR")],
    qkv: Annotated[int, typer.Option(help="parameter tokens of each of the query, key and value projections", min=1)],
    out: Annotated[
        int | None, typer.Option(help="parameter tokens of the output projection [default: qkv]", min=1)
    ] = None,
    ffn: Annotated[
        int | None, typer.Option(help="parameter tokens of the feed-forward layer [default: 4 qkv]", min=1)
    ] = None,
) -> int:
    """Grow one checkpoint by hand and show what that did to its loss."""
    from tfscale.cli.grow import grow

    return grow(common, stage, to, (qkv, out or qkv, ffn or 4 * qkv))


@command(app)
def generate(
    common: Common,
    stage: Stages,
    prompt: Annotated[str, typer.Argument(help="text to continue")] = "",
    tokens: Annotated[int, typer.Option(help="number of tokens to generate", min=1)] = 200,
    temperature: Annotated[
        float, typer.Option(help="sampling temperature; 0: always the most likely token", min=0)
    ] = 0.8,
    top_k: Annotated[int, typer.Option(help="sample among the k most likely tokens; 0: among all", min=0)] = 0,
    top_p: Annotated[
        float, typer.Option(help="sample among the most likely tokens that together reach p; 1: among all", max=1)
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="random seed for sampling", min=0, max=2**63 - 1)] = 0,
) -> int:
    """Generate text from finished stages, one as it writes or several side by side."""
    from tfscale.cli.generate import generate

    return generate(common, stage, prompt, tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)


@command(app, "import", takes=("as_json",))
def import_(
    common: Common,
    source: Annotated[
        Path,
        typer.Argument(
            help="the official code's pytorch_model.bin or folder of layer_*.pt files, or a folder of `tfscale export`",
            metavar="CKPT",
        ),
    ],
    to: Annotated[Path, typer.Option(help="folder to create for the imported stage, not there yet", metavar="DIR")],
    config: Annotated[
        Path | None, typer.Option(help="YAML config of the model from the official repository", metavar="CONFIG.yml")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="tokenizer.json of the model", metavar="FILE")] = None,
    data: Annotated[
        Path | None, typer.Option(help="a prepared corpus to evaluate and compare growth on", metavar="DIR")
    ] = None,
    tokens: Annotated[
        str, typer.Option(help="number of tokens that the model was trained on, such as 300B; its cost follows")
    ] = "",
) -> int:
    """Make a stage of a model from elsewhere, to grow, train, evaluate or export it."""
    from tfscale.cli.import_ import import_

    return import_(common, source, to, config, tokenizer, data, tokens)


@command(data)
def prepare(common: Common) -> int:
    """Tokenize a corpus, and download its text if it is on the hub. Continues where it was stopped."""
    from tfscale.cli.data import prepare

    return prepare(common)


@command(data, "list")
def list_corpora(common: Common) -> int:
    """List the corpora that are prepared, and those left unfinished."""
    from tfscale.cli.data import show

    return show(common)


@command(app)
def export(
    common: Common,
    stage: Annotated[
        str, typer.Argument(help=f"{STAGE}; or chain: the last stage of schedule=", autocompletion=completion.stages)
    ],
    out: Annotated[Path, typer.Option(help="folder to create; it must not exist yet", metavar="DIR")],
    to: Annotated[Literal["hf"], typer.Option(help="format to write: a folder for Hugging Face libraries")] = "hf",
) -> int:
    """Write a finished stage for other libraries: weights, config, tokenizer, model card."""
    from tfscale.cli.export import export

    return export(common, stage, to, out)


@command(app, "eval")
def evaluate(
    common: Common,
    stage: Stages,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            help="text to evaluate on: a .txt or .jsonl file, or a folder of them [default: the validation tokens]",
            metavar="FILE",
        ),
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="new tokens per window of the text [default: the context]", min=1)
    ] = None,
    tasks: Annotated[
        str, typer.Option(help="zero-shot tasks, separated by commas; paper: the six of the TokenFormer paper")
    ] = "",
    task_path: Annotated[Path | None, typer.Option(help="a folder of your own task YAML files", metavar="DIR")] = None,
    limit: Annotated[int | None, typer.Option(help="number of samples per task [default: all]", min=1)] = None,
) -> int:
    """Measure finished stages on validation tokens, on any text, or on zero-shot tasks."""
    from tfscale.cli.eval import evaluate

    return evaluate(common, stage, text or [], stride, tasks, task_path, limit)


@command(app)
def sync(
    common: Common,
    uri: Annotated[str, typer.Argument(help="URI of a tracker; MLflow's: http(s)://HOST, sqlite:///FILE, a database")],
) -> int:
    """Send the contents of the runs folder to another tracker, each measurement once. Overrides other than runs=,
    tracking.kind= and extensions= choose one plan."""
    from tfscale.cli.sync import sync

    return sync(common, uri)


@command(app, "list", takes=("as_json", "config_dir"))
def list_options(
    common: Common,
    kind: Annotated[
        str,
        typer.Argument(
            help="schedules, growths, data, devices, ... [default: all kinds]",
            autocompletion=completion.kinds,
        ),
    ] = "",
) -> int:
    """List the options of a configuration group, one per line: your own and those shipped."""
    from tfscale.cli.list_ import list_

    return list_(common, kind)


@command(app)
def doctor(common: Common) -> int:
    """Report what this machine can run, and how to fix what is wrong."""
    from tfscale.cli.doctor import doctor

    return doctor(common)


@command(app, takes=("overrides", "config_dir"))
def ui(
    common: Common,
    port: Annotated[int, typer.Option(help="port to serve on (localhost only)", min=1, max=65535)] = 5000,
) -> int:
    """Serve MLflow's page on localhost, with every run and curve. Other trackers have pages of their own."""
    from tfscale.cli.ui import ui

    return ui(common, port)


@command(app, takes=("as_json",))
def bench(
    common: Common,
    quick: Annotated[
        bool, typer.Option("--quick", help="use small sizes and few rounds, to see that everything works")
    ] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="device to benchmark on")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads [default: all cores]", min=0)] = 0,
    case: Annotated[str, typer.Option(help="measure only cases whose names contain this, such as 124M")] = "",
    out: Annotated[Path | None, typer.Option(help="folder for bench_<device>.json and .md", metavar="FOLDER")] = None,
) -> int:
    """Measure the speed and memory of training on this machine, beside its matrix-multiply peak."""
    from tfscale.cli.bench import bench

    return bench(common, quick, device, threads, case, out)


def main() -> None:
    """Run the command line and report its errors as messages."""
    completion.skip_equals_sign()
    streams.open_streams()
    sys.exit(streams.exit_code(errors.in_words(lambda: app(prog_name="tfscale"))))
