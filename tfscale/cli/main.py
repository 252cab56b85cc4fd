"""The `tfscale` command: one module a verb, loaded when it is used, so that --help needs neither torch nor MLflow."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

# Nothing phones home, whatever a verb loads later.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

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
    list[str] | None, typer.Argument(metavar="[OVERRIDES]...", help="such as schedule=progressive_1b4")
]
ConfigDir = Annotated[
    Path | None, typer.Option(help="a folder whose groups come before conf/ here and the shipped ones", metavar="DIR")
]


@app.command()
def run(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Train the chain of a schedule, stage by stage; what is finished is never trained again."""
    from tfscale.cli.run import run as verb

    raise typer.Exit(verb(overrides or [], config_dir))


@app.command()
def plan(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Show what would run and what it would cost. Writes nothing."""
    from tfscale.cli.plan import plan as verb

    raise typer.Exit(verb(overrides or [], config_dir))


@app.command()
def compare(
    overrides: Overrides = None,
    baseline: Annotated[str, typer.Option(help="arms beside the chain: a name of the baseline group")] = "scratch",
    run_missing: Annotated[bool, typer.Option("--run-missing", help="train what is not there yet")] = False,
    config_dir: ConfigDir = None,
) -> None:
    """Compare the chain with baselines at equal cost: figure, table, verdicts."""
    from tfscale.cli.compare import compare as verb

    raise typer.Exit(verb(overrides or [], baseline, run_missing, config_dir))


@app.command()
def status(
    overrides: Overrides = None,
    verify: Annotated[bool, typer.Option("--verify", help="read all of it again and say what is wrong")] = False,
    config_dir: ConfigDir = None,
) -> None:
    """Show how far each stage is. With --verify: whether checkpoints, measurements, lineage and corpus are true."""
    from tfscale.cli.status import status as verb

    raise typer.Exit(verb(overrides or [], verify, config_dir))


@app.command()
def grow(
    stage: Annotated[str, typer.Argument(help="a finished stage: its folder, its name or the start of its key")],
    to: Annotated[Path, typer.Option(help="folder of the grown checkpoint, which must not exist", metavar="DIR")],
    qkv: Annotated[int, typer.Option(help="parameter tokens of each of the query, key and value projections", min=1)],
    out: Annotated[int | None, typer.Option(help="of the output projection [default: qkv]", min=1)] = None,
    ffn: Annotated[int | None, typer.Option(help="of the feed-forward layer [default: 4 qkv]", min=1)] = None,
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
) -> None:
    """Grow one checkpoint by hand and show what that did to its loss."""
    from tfscale.cli.grow import grow as verb

    raise typer.Exit(verb(stage, to, (qkv, out or qkv, ffn or 4 * qkv), overrides or [], config_dir))


@app.command()
def generate(
    stage: Annotated[str, typer.Argument(help="a finished stage: its folder, its name or the start of its key")],
    prompt: Annotated[str, typer.Argument(help="text to go on from")] = "",
    tokens: Annotated[int, typer.Option(help="tokens to add", min=1)] = 200,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token", min=0)] = 0.8,
    top_k: Annotated[int, typer.Option(help="among the k likeliest; 0: among all", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="of the draws", min=0, max=2**63 - 1)] = 0,
    runs: Annotated[Path, typer.Option(help="the runs folder", metavar="DIR")] = Path("runs"),
) -> None:
    """Let a finished stage write."""
    from tfscale.cli.generate import generate as verb

    raise typer.Exit(verb(stage, prompt, tokens, temperature, top_k, seed, runs))


@app.command()
def ui(
    overrides: Overrides = None,
    port: Annotated[int, typer.Option(help="on this machine alone", min=1, max=65535)] = 5000,
    config_dir: ConfigDir = None,
) -> None:
    """Serve MLflow's page on localhost, with every run and curve."""
    from tfscale.cli.ui import ui as verb

    raise typer.Exit(verb(overrides or [], port, config_dir))


def main() -> None:
    """Entry point: faults of the user are told in words, with exit code 2."""
    from tfscale.faults import USER_FAULT, UserFault

    try:
        app()
    except UserFault as fault:
        for line in fault.faults:
            print(f"error: {line}", file=sys.stderr)
        sys.exit(USER_FAULT)
