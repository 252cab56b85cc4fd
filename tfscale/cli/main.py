"""The `tfscale` command: one module a verb, loaded when it is used, so that --help needs neither torch nor MLflow."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from tfscale.children import QUIET
from tfscale.cli import completion, errors, streams

# Nothing phones home, whatever a verb loads later.
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

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[OVERRIDES]...", help="such as schedule=progressive_1b4", autocompletion=completion.overrides
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(
        help="a folder whose groups come before conf/ here and the shipped ones; none: the shipped ones alone",
        metavar="DIR",
    ),
]
Baseline = Annotated[
    str,
    typer.Option(
        help="arms beside the chain: names of the baseline group, with commas", autocompletion=completion.baselines
    ),
]

Out = Annotated[
    Path | None,
    typer.Option(
        help="folder to write to; the runs folder is only read then [default: its comparisons/]", metavar="DIR"
    ),
]


def _leave_stdout(context: typer.Context, alone: bool) -> bool:
    if alone and not context.resilient_parsing:
        from tfscale.cli.console import leave_stdout

        leave_stdout(True)
        context.call_on_close(lambda: leave_stdout(False))
    return alone


AsJson = Annotated[
    bool,
    typer.Option("--json", callback=_leave_stdout, help="one JSON document on stdout; progress goes to stderr"),
]

_STAGE = "a finished stage: its folder, its name or the start of its key"
_STAGES = f"{_STAGE}; several with commas between them; chain: every finished stage of schedule="


@app.command()
def run(overrides: Overrides = None, as_json: AsJson = False, config_dir: ConfigDir = None) -> None:
    """Train the chain of a schedule, stage by stage; what is finished is never trained again."""
    from tfscale.cli.run import run as verb

    raise typer.Exit(verb(overrides or [], config_dir, as_json))


@app.command()
def plan(overrides: Overrides = None, as_json: AsJson = False, config_dir: ConfigDir = None) -> None:
    """Show what would run and what it would cost: memory, time, energy, money. Writes nothing."""
    from tfscale.cli.plan import plan as verb

    raise typer.Exit(verb(overrides or [], as_json, config_dir))


@app.command()
def compare(
    overrides: Overrides = None,
    baseline: Baseline = "scratch",
    run_missing: Annotated[bool, typer.Option("--run-missing", help="train what is not there yet")] = False,
    out: Out = None,
    as_json: AsJson = False,
    config_dir: ConfigDir = None,
) -> None:
    """Compare the chain with baselines at equal cost: figure, table, verdicts."""
    from tfscale.cli.compare import compare as verb

    raise typer.Exit(verb(overrides or [], baseline, run_missing, config_dir, as_json, out))


@app.command()
def report(
    overrides: Overrides = None,
    baseline: Baseline = "scratch",
    out: Out = None,
    as_json: AsJson = False,
    config_dir: ConfigDir = None,
) -> None:
    """Write the comparison as one HTML page that needs no network: figures, tables, verdicts, configurations."""
    from tfscale.cli.report import report as verb

    raise typer.Exit(verb(overrides or [], baseline, config_dir, as_json, out))


@app.command()
def tune(
    overrides: Overrides = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(help="progressive, an arm of baseline=, or all; may be given again [default: all]", metavar="ARM"),
    ] = None,
    factors: Annotated[str, typer.Option(help="of the present rates: what is tried first")] = "0.5,0.7,1,1.4,2",
    further: Annotated[int, typer.Option(help="rates tried beyond these at most, while the best is at the edge")] = 3,
    seeds: Annotated[int, typer.Option(help="runs of every candidate; their mean loss counts")] = 1,
    write: Annotated[
        str | None,
        typer.Option(help="write the rates: conf/schedule/NAME.yaml, and conf/baseline/ for arms' own", metavar="NAME"),
    ] = None,
    as_json: AsJson = False,
    config_dir: ConfigDir = None,
) -> None:
    """Choose the learning rates of the arms by small sweeps, on held-out text that no comparison reads."""
    from tfscale.cli.tune import Asked
    from tfscale.cli.tune import tune as verb

    asked = Asked(tuple(arm or ["all"]), factors, further, seeds, write)
    raise typer.Exit(verb(overrides or [], asked, as_json, config_dir))


@app.command()
def status(
    overrides: Overrides = None,
    verify: Annotated[bool, typer.Option("--verify", help="read all of it again and say what is wrong")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="show it live until all is done, or until Ctrl-C")] = False,
    as_json: AsJson = False,
    config_dir: ConfigDir = None,
) -> None:
    """Show how far each stage is. With --verify: whether checkpoints, measurements, lineage and corpus are true."""
    from tfscale.cli.status import status as verb

    raise typer.Exit(verb(overrides or [], verify, config_dir, watch, as_json))


@app.command()
def grow(
    stage: Annotated[str, typer.Argument(help=_STAGE, autocompletion=completion.stages)],
    to: Annotated[Path, typer.Option(help="folder of the grown checkpoint, which must not exist", metavar="DIR")],
    qkv: Annotated[int, typer.Option(help="parameter tokens of each of the query, key and value projections", min=1)],
    out: Annotated[int | None, typer.Option(help="of the output projection [default: qkv]", min=1)] = None,
    ffn: Annotated[int | None, typer.Option(help="of the feed-forward layer [default: 4 qkv]", min=1)] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    config_dir: ConfigDir = None,
) -> None:
    """Grow one checkpoint by hand and show what that did to its loss."""
    from tfscale.cli.grow import grow as verb

    raise typer.Exit(verb(stage, to, (qkv, out or qkv, ffn or 4 * qkv), overrides or [], config_dir, as_json))


@app.command()
def generate(
    stage: Annotated[str, typer.Argument(help=_STAGES, autocompletion=completion.stages)],
    prompt: Annotated[str, typer.Argument(help="text to go on from")] = "",
    overrides: Overrides = None,
    tokens: Annotated[int, typer.Option(help="tokens to add", min=1)] = 200,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token", min=0)] = 0.8,
    top_k: Annotated[int, typer.Option(help="among the k likeliest; 0: among all", min=0)] = 0,
    top_p: Annotated[float, typer.Option(help="among the likeliest that together reach p; 1: among all", max=1)] = 1.0,
    seed: Annotated[int, typer.Option(help="of the draws", min=0, max=2**63 - 1)] = 0,
    as_json: AsJson = False,
    config_dir: ConfigDir = None,
) -> None:
    """Let finished stages write, one as it goes or several side by side."""
    from tfscale.cli.generate import generate as verb

    raise typer.Exit(
        verb(stage, prompt, tokens, (temperature, top_k, top_p, seed), overrides or [], config_dir, as_json)
    )


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="the official code's pytorch_model.bin or folder of layer_*.pt files, or a folder of `tfscale export`",
            metavar="CKPT",
        ),
    ],
    to: Annotated[Path, typer.Option(help="folder of the imported stage, which must not exist", metavar="DIR")],
    config: Annotated[
        Path | None, typer.Option(help="the official code's YAML file of these weights", metavar="CONFIG.yml")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="its tokenizer.json", metavar="FILE")] = None,
    data: Annotated[
        Path | None, typer.Option(help="a prepared corpus to evaluate and compare growth on", metavar="DIR")
    ] = None,
    tokens: Annotated[str, typer.Option(help="what it was trained on, for the ledger, such as 300B")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a stage of a model from elsewhere, to grow, train on, evaluate, export."""
    from tfscale.cli.import_ import import_ as verb

    raise typer.Exit(verb(source, config, to, tokenizer, data, tokens, as_json))


data = typer.Typer(help="Corpora: fetch and prepare them, list them.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")


@data.command()
def prepare(overrides: Overrides = None, as_json: AsJson = False, config_dir: ConfigDir = None) -> None:
    """Make a corpus' tokens, and fetch its text where it is the hub's. Goes on where it was stopped."""
    from tfscale.cli.data import prepare as verb

    raise typer.Exit(verb(overrides or [], config_dir, as_json))


@data.command("list")
def list_(overrides: Overrides = None, as_json: AsJson = False, config_dir: ConfigDir = None) -> None:
    """Show the corpora that are prepared, and what was left unfinished."""
    from tfscale.cli.data import show as verb

    raise typer.Exit(verb(overrides or [], config_dir, as_json))


@app.command()
def export(
    stage: Annotated[
        str, typer.Argument(help=f"{_STAGE}; chain: the last one of schedule=", autocompletion=completion.stages)
    ],
    out: Annotated[Path, typer.Option(help="folder to write, which must not exist", metavar="DIR")],
    overrides: Overrides = None,
    to: Annotated[Literal["hf"], typer.Option(help="the form: a folder for Hugging Face's libraries")] = "hf",
    as_json: AsJson = False,
    config_dir: ConfigDir = None,
) -> None:
    """Write a finished stage for other libraries: weights, config, tokenizer, model card."""
    from tfscale.cli.export import export as verb

    raise typer.Exit(verb(stage, to, out, overrides or [], config_dir, as_json))


@app.command("eval")
def eval_(
    stage: Annotated[str, typer.Argument(help=_STAGES, autocompletion=completion.stages)],
    overrides: Overrides = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(help="a .txt or .jsonl file or a folder of them; without it the held-out tokens", metavar="FILE"),
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="tokens a window adds to the one before [default: the context]", min=1)
    ] = None,
    tasks: Annotated[str, typer.Option(help="zero-shot tasks, with commas between them; paper: the paper's six")] = "",
    task_path: Annotated[Path | None, typer.Option(help="a folder of your own task YAML files", metavar="DIR")] = None,
    limit: Annotated[int | None, typer.Option(help="samples of each task [default: all]", min=1)] = None,
    as_json: AsJson = False,
    config_dir: ConfigDir = None,
) -> None:
    """Measure finished stages on held-out tokens, on any text, on zero-shot tasks."""
    from tfscale.cli.eval import evaluate as verb

    raise typer.Exit(verb(stage, text or [], tasks, task_path, limit, stride, overrides or [], config_dir, as_json))


@app.command()
def sync(
    uri: Annotated[
        str, typer.Argument(help="where the tracker is: of MLflow http(s)://HOST, sqlite:///FILE or a database's URI")
    ],
    overrides: Overrides = None,
    as_json: AsJson = False,
    config_dir: ConfigDir = None,
) -> None:
    """Send what the runs folder holds to another tracker, once. Overrides other than runs= choose one plan."""
    from tfscale.cli.sync import sync as verb

    raise typer.Exit(verb(uri, overrides or [], as_json, config_dir))


@app.command("list")
def list_kind(
    kind: Annotated[
        str, typer.Argument(help="schedules, growths, data, devices, ...", autocompletion=completion.kinds)
    ] = "",
    as_json: AsJson = False,
    config_dir: ConfigDir = None,
) -> None:
    """List what can be chosen, a line each: your own beside what is shipped."""
    from tfscale.cli.list_ import list_ as verb

    raise typer.Exit(verb(kind, config_dir, as_json))


@app.command()
def doctor(overrides: Overrides = None, as_json: AsJson = False, config_dir: ConfigDir = None) -> None:
    """Say what this machine can run, and how to mend what is wrong."""
    from tfscale.cli.doctor import doctor as verb

    raise typer.Exit(verb(overrides or [], config_dir, as_json))


@app.command()
def ui(
    overrides: Overrides = None,
    port: Annotated[int, typer.Option(help="on this machine alone", min=1, max=65535)] = 5000,
    config_dir: ConfigDir = None,
) -> None:
    """Serve MLflow's page on localhost, with every run and curve. Other trackers have pages of their own."""
    from tfscale.cli.ui import ui as verb

    raise typer.Exit(verb(overrides or [], port, config_dir))


@app.command()
def bench(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PART]...",
            help="pattention, step [default: both]",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="small sizes and few rounds, to see that everything works")
    ] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="device to benchmark on")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads [default: all cores]", min=0)] = 0,
    case: Annotated[str, typer.Option(help="only cases whose names contain this, such as 124M")] = "",
    out: Annotated[Path | None, typer.Option(help="folder for bench_<device>.json and .md", metavar="FOLDER")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the speed and memory of training on this machine, beside its matrix-multiply peak."""
    from tfscale.cli.bench import bench as verb

    raise typer.Exit(verb(parts or [], quick, device, threads, case, out, as_json))


def main() -> None:
    """Run the command line, with its errors in words."""
    completion.skip_equals_sign()
    streams.open_streams()
    sys.exit(streams.exit_code(errors.in_words(lambda: app(prog_name="tfscale"))))
