"""Sphinx's settings. `make docs` builds the site into build/docs; every warning is an error."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from reference_pages import PAGES
from sphinx.application import Sphinx

project = "tfscale"
author = "The tfscale developers"
extensions = ["myst_parser"]
nitpicky = True
smartquotes = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3  # `page.md#heading` works as it does on a git server

html_theme = "furo"  # system fonts, nothing from the network
html_title = "tfscale"
html_copy_source = False
html_show_copyright = False


def setup(app: Sphinx) -> None:
    """Fills the pages under reference/ from the code, each time they are read."""
    app.connect("source-read", _fill)


def _fill(app: Sphinx, page: str, source: list[str]) -> None:
    for mark, write in PAGES.items():
        if mark in source[0]:
            source[0] = source[0].replace(mark, write())
