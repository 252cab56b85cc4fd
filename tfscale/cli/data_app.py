"""Definition of the `tfscale data` commands. Their code is imported on use, as in `tfscale.cli.main`."""

import typer

from tfscale.cli.common import Common, command

app = typer.Typer(help="Prepare and list corpora.", no_args_is_help=True, rich_markup_mode=None)


@command(app)
def prepare(common: Common) -> int:
    """Download a corpus if it is on the hub, and tokenize it. A stopped preparation is resumed."""
    from tfscale.cli.data import prepare

    return prepare(common)


@command(app, "list")
def list_corpora(common: Common) -> int:
    """List the prepared and the unfinished corpora."""
    from tfscale.cli.data import show

    return show(common)
