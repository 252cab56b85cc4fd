"""The results as a LaTeX table (booktabs)."""

from tfscale.analysis.compared import Comparison
from tfscale.analysis.formats import RESULTS, results
from tfscale.analysis.words import basis

ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def to_latex(comparison: Comparison) -> str:
    """A `table` for \\input in a document that loads booktabs."""
    table = comparison.table
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering\\small",
        f"\\caption{{{escape(comparison.heading)}. {escape(' '.join(basis(table)))}}}",
        f"\\begin{{tabular}}{{ll{'r' * (len(RESULTS) - 2)}}}",
        "\\toprule",
        _line(RESULTS),
    ]
    size = None
    for cells in results(table):
        if cells[0] != size:
            lines.append("\\midrule")
        size = cells[0]
        lines.append(_line(cells))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def _line(cells: list[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(ESCAPES.get(letter, letter) for letter in text)
