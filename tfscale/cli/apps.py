"""Definition of the commands `tfscale grow`, `generate`, `import`, `export` and `eval`, and of the command groups
`tfscale data` and `tfscale store`. The code of a command is imported when the command is used, as in
`tfscale.cli.main`."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from tfscale.cli import completion
from tfscale.cli.common import Common, command

stage_app = typer.Typer()
data_app = typer.Typer(help="Prepare and list corpora.", no_args_is_help=True, rich_markup_mode=None)
store_app = typer.Typer(
    help="Share stages and corpora through the store that store= names.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Groups = Annotated[
    int | None,
    Option(
        help="Use only the first K groups of parameter tokens of models that have grown by groups [default: all]",
        metavar="K",
    ),
]
STAGE = "Finished stage, given by its folder or the beginning of its name or key"
STAGES = f"{STAGE}; several stages, separated by commas; or chain for all finished stages of schedule="
Stages = Annotated[str, Argument(help=STAGES, autocompletion=completion.stages)]
Only = Annotated[
    list[str] | None,
    Option(
        "--only", help="Use only this stage or corpus, given by its name or the beginning of its key; may be repeated"
    ),
]


@command(stage_app)
def grow(
    common: Common,
    stage: Annotated[str, Argument(help=STAGE, autocompletion=completion.stages)],
    to: Annotated[Path, Option(help="Create this folder for the grown checkpoint; it must not exist", metavar="DIR")],
    qkv: Annotated[int, Option(help="Set the number of parameter tokens per query, key and value projection", min=1)],
    out: Annotated[
        int | None, Option(help="Set the number of parameter tokens of the output projection [default: qkv]", min=1)
    ] = None,
    ffn: Annotated[
        int | None, Option(help="Set the number of parameter tokens of the feed-forward layer [default: 4 qkv]", min=1)
    ] = None,
) -> int:
    """Grow the checkpoint of a stage; show the loss before and after."""
    from tfscale.cli.grow import grow

    return grow(common, stage, to, (qkv, out or qkv, ffn or 4 * qkv))


@command(stage_app)
def generate(
    common: Common,
    stage: Stages,
    prompt: Annotated[str, Argument(help="Text to continue")] = "",
    tokens: Annotated[int, Option(help="Generate at most this many tokens", min=1)] = 200,
    temperature: Annotated[
        float, Option(help="Sample at this temperature; 0: always take the most likely token", min=0)
    ] = 0.8,
    top_k: Annotated[int, Option(help="Sample from the k most likely tokens; 0: from all", min=0)] = 0,
    top_p: Annotated[
        float, Option(help="Sample from the most likely tokens with a total probability of p; 1: from all", max=1)
    ] = 1.0,
    seed: Annotated[int, Option(help="Use this random seed for sampling", min=0, max=2**63 - 1)] = 0,
    groups: Groups = None,
) -> int:
    """Generate text with one or several finished stages. Stages compute in float32, on a GPU if there is one."""
    from tfscale.cli.generate import generate

    return generate(
        common, stage, prompt, tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, groups=groups
    )


@command(stage_app, "import", takes=("as_json",))
def import_(
    common: Common,
    source: Annotated[
        Path,
        Argument(
            help="Weights to import: pytorch_model.bin or a folder of layer_*.pt files from the official code, or a "
            "folder written by `tfscale export`",
            metavar="CKPT",
        ),
    ],
    to: Annotated[Path, Option(help="Create this folder for the imported stage; it must not exist", metavar="DIR")],
    config: Annotated[
        Path | None,
        Option(help="Read the model's config from this YAML file of the official code", metavar="CONFIG.yml"),
    ] = None,
    tokenizer: Annotated[Path | None, Option(help="Use this tokenizer.json for the model", metavar="FILE")] = None,
    data: Annotated[
        Path | None, Option(help="Use this prepared corpus for evaluation and for checks of growth", metavar="DIR")
    ] = None,
    tokens: Annotated[
        str, Option(help="Compute the training cost of the model from this number of training tokens, such as 300B")
    ] = "",
) -> int:
    """Import a model as a finished stage. The stage can be evaluated, exported, or grown and trained further."""
    from tfscale.cli.import_ import import_

    return import_(common, source, to, config, tokenizer, data, tokens)


@command(stage_app)
def export(
    common: Common,
    stage: Annotated[
        str,
        Argument(
            help=f"{STAGE}, or `chain` for the last finished stage of the schedule", autocompletion=completion.stages
        ),
    ],
    out: Annotated[Path, Option(help="Create this folder for the exported stage; it must not exist", metavar="DIR")],
    to: Annotated[Literal["hf"], Option(help="Write this format; hf: a folder for Hugging Face libraries")] = "hf",
    groups: Groups = None,
) -> int:
    """Export a finished stage to other libraries. Weights, config, tokenizer and a model card are written."""
    from tfscale.cli.export import export

    return export(common, stage, to, out, groups)


@command(stage_app, "eval")
def evaluate(
    common: Common,
    stage: Stages,
    text: Annotated[
        list[Path] | None,
        Option(
            help="Evaluate on this .txt or .jsonl file, or a folder of such files [default: the validation tokens]",
            metavar="FILE",
        ),
    ] = None,
    stride: Annotated[
        int | None, Option(help="Evaluate this many new tokens per window of the text [default: the context]", min=1)
    ] = None,
    tasks: Annotated[
        str,
        Option(help="Evaluate on these zero-shot tasks, separated by commas; paper: those of the TokenFormer paper"),
    ] = "",
    task_path: Annotated[
        Path | None, Option(help="Read further tasks from the YAML files in this folder", metavar="DIR")
    ] = None,
    limit: Annotated[int | None, Option(help="Use at most this many samples per task [default: all]", min=1)] = None,
    groups: Groups = None,
) -> int:
    """Evaluate finished stages on validation tokens, texts or tasks. Texts are any files, and tasks are zero-shot."""
    from tfscale.cli.eval import evaluate

    return evaluate(common, stage, text or [], stride, tasks, task_path, limit, groups)


@command(data_app)
def prepare(common: Common) -> int:
    """Tokenize a corpus. A corpus on the Hugging Face Hub is downloaded first. A stopped preparation is resumed."""
    from tfscale.cli.data import prepare

    return prepare(common)


@command(data_app, "list")
def list_corpora(common: Common) -> int:
    """List the prepared and the unfinished corpora in the runs folder."""
    from tfscale.cli.data import show

    return show(common)


@command(store_app, "ls")
def list_store(common: Common) -> int:
    """List the stages and corpora in the store."""
    from tfscale.cli.store import list_store

    return list_store(common)


@command(store_app)
def push(common: Common, only: Only = None) -> int:
    """Upload the stages and corpora of the runs folder. An interrupted upload is resumed."""
    from tfscale.cli.store import push

    return push(common, only or [])


@command(store_app)
def pull(common: Common, only: Only = None) -> int:
    """Download the stages and corpora of the store into the runs folder. An interrupted download is resumed."""
    from tfscale.cli.store import pull

    return pull(common, only or [])


@command(store_app)
def verify(common: Common, only: Only = None) -> int:
    """Read every file in the store and compare it with its checksum."""
    from tfscale.cli.store import verify

    return verify(common, only or [])


@command(store_app)
def gc(
    common: Common, dry_run: Annotated[bool, Option("--dry-run", help="Only list what would be removed")] = False
) -> int:
    """Remove outdated snapshots of stages, and files older than one day that belong to incomplete uploads."""
    from tfscale.cli.store import gc

    return gc(common, dry_run)
