"""Writing of a comparison's tables and figures to files."""

from pathlib import Path

from tfscale.analysis.caption import caption
from tfscale.analysis.comparison import Comparison
from tfscale.analysis.documents import to_latex, to_markdown
from tfscale.analysis.figures import figures
from tfscale.analysis.formats import to_csv, to_json
from tfscale.analysis.style import FIGURE_KINDS, render
from tfscale.files import write_atomically


def write_comparison(comparison: Comparison, folder: Path) -> tuple[Path, ...]:
    """Write the tables and figures of a comparison to a folder, which is created if missing. Each file is replaced
    atomically.

    The tables are `table.csv`, `table.json`, `table.md` and `table.tex`. The figures, each as PNG, SVG and PDF, are
    `figure` in the measure of the comparison, `figure_time`, `figure_tokens` and `costs`. `caption.txt` is the caption
    of `figure`.

    Returns:
        Paths of the written files.

    Raises:
        ValueError: nothing has been measured yet; no file is written.
        OSError: the folder cannot be written.
    """
    contents = {
        "table.csv": to_csv(comparison.table).encode(),
        "table.json": to_json(comparison).encode(),
        "table.md": to_markdown(comparison).encode(),
        "table.tex": to_latex(comparison).encode(),
        "caption.txt": "\n".join([*caption(comparison.arms), ""]).encode(),
        **{f"{name}.{kind}": render(figure, kind) for name, figure in figures(comparison) for kind in FIGURE_KINDS},
    }
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return tuple(folder / name for name in contents)
