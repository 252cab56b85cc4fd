"""Definition of the command groups `tfscale data` and `tfscale store`. Their code is imported on use, as in
`tfscale.cli.main`."""

from typing import Annotated

import typer

from tfscale.cli.common import Common, command

data_app = typer.Typer(help="Prepare and list corpora.", no_args_is_help=True, rich_markup_mode=None)
store_app = typer.Typer(
    help="Share stages and corpora with other machines, through the store that store= names.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only", help="Use only this stage or corpus, given by its name or the beginning of its key; may be repeated"
    ),
]


@command(data_app)
def prepare(common: Common) -> int:
    """Download a corpus if it is on the hub, and tokenize it. A stopped preparation is resumed."""
    from tfscale.cli.data import prepare

    return prepare(common)


@command(data_app, "list")
def list_corpora(common: Common) -> int:
    """List the prepared and the unfinished corpora."""
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
    common: Common, dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed")] = False
) -> int:
    """Remove checkpoints of stages that have a newer snapshot, and uploads that have been incomplete for a day."""
    from tfscale.cli.store import gc

    return gc(common, dry_run)
