"""Bar chart that compares the family costs of arms at equal perplexity per size. The family cost of an arm is the total
cost of its models of all sizes."""

from collections.abc import Sequence
from typing import Any

from tfscale.analysis.curves import ArmCurve, Measure, the_chain
from tfscale.analysis.family import FamilyComparison, FamilyCost
from tfscale.analysis.family_words import SIGNS, dollars
from tfscale.analysis.style import GREY, SMALL, WIDTH, Style, blank, drawing, power, styles, tidy
from tfscale.analysis.words import UNITS, amount

BAR, GAP, MARGIN = 0.19, 0.5, 1.15
"""Height of a bar in inches, space between groups of bars as a multiple of the height of a bar, and total height in
inches of the legend, axis labels and note."""
ROOM = 1.45
"""Length of the axis as a multiple of the longest bar, which leaves space for the label of this bar."""
NOTE = "≤: some of the perplexities were reached during training, before the decay. ≥: some were not reached."
SIGN_LETTERS = str.maketrans({"<": "≤", ">": "≥", "=": None})

Bars = list[tuple[str, str, FamilyCost]]
"""Bars of a group. Each tuple contains the name, the title and the family cost of an arm."""


def family_figure(families: Sequence[FamilyComparison], arms: Sequence[ArmCurve], price: float | None) -> Any:
    """Draw family costs and return a `matplotlib.figure.Figure`. It has one panel per measure of cost, except FLOPs
    with optimizer. Each panel has one group of bars for the costs at the chain's perplexities and, for each other arm,
    one group for the costs at the perplexities of this arm. Labels of device-seconds include US dollars if `price` is
    known."""
    measures = list(dict.fromkeys(each.measure for each in families if each.measure != "flops_with_optimizer"))
    with drawing():
        if not measures:
            figure = blank(WIDTH, MARGIN)
            figure.suptitle("No arm has all sizes of the chain yet.", fontsize=SMALL, color=GREY)
            return figure
        chain, looks = the_chain(arms), styles(arms)
        groups = [_groups([each for each in families if each.measure == measure], chain) for measure in measures]
        bars = sum(len(bars) + GAP for _, bars in groups[0])
        figure = blank(WIDTH, MARGIN + BAR * bars)
        panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
        for axes, measure, each in zip(panels, measures, groups, strict=True):
            _draw(axes, measure, each, looks, price)
        figure.supxlabel(NOTE, fontsize=SMALL, color=GREY, x=0.01, ha="left")
        titles = {name: title for _, bars in groups[0] for name, title, _ in bars}
        handles, labels = panels[0].get_legend_handles_labels()
        shown = dict(zip(labels, handles, strict=True))
        figure.legend(
            [shown[title] for title in titles.values()], list(titles.values()), loc="outside upper left", ncols=2,
            frameon=False, fontsize=SMALL + 0.4, title="Cost of all sizes together", alignment="left",
            title_fontproperties={"size": 9, "weight": "bold"},
        )  # fmt: skip
    return figure


def _groups(families: Sequence[FamilyComparison], chain: ArmCurve) -> list[tuple[str, Bars]]:
    at_chain = [
        (chain.name, chain.title, families[0].at_chain.chain),
        *((each.arm, each.title, each.at_chain.arm) for each in families),
    ]
    at_arms = [
        (each.title, [(chain.name, chain.title, each.at_arm.chain), (each.arm, each.title, each.at_arm.arm)])
        for each in families
    ]
    return [("the chain", at_chain), *at_arms]


def _draw(
    axes: Any, measure: Measure, groups: Sequence[tuple[str, Bars]], looks: dict[str, Style], price: float | None
) -> None:
    place, middles = 0.0, []
    longest = max(cost.shown for _, bars in groups for *_, cost in bars)
    for _, bars in groups:
        middles.append(place + (len(bars) - 1) / 2)
        for name, title, cost in bars:
            look = looks[name]
            axes.barh(place, cost.shown, 0.88, facecolor=look.colour, edgecolor="white", hatch=look.hatch,
                      linewidth=0.3, label=title)  # fmt: skip
            in_dollars = f" ({dollars(cost, price)})" if price and measure == "device_seconds" else ""
            text = f"{SIGNS[cost.bound].translate(SIGN_LETTERS)}{amount(cost.shown, measure)}{in_dollars}"
            axes.annotate(text, (cost.shown, place), (3, 0), textcoords="offset points", va="center", fontsize=SMALL)
            place += 1
        place += GAP
    axes.set_yticks(middles, [f"at the perplexities of\n{title}" for title, _ in groups])
    axes.set_ylim(place - GAP - 0.4, -0.6)
    axes.set_xlim(0, ROOM * longest)
    axes.set_xlabel(UNITS[measure])
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: power(value) if value else "0"))
    tidy(axes)
    axes.grid(False)
