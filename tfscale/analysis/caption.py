"""Caption of the main figure. It describes the figure, the tokens per parameter, and the limits of the comparison."""

from collections.abc import Sequence

import numpy as np

from tfscale.analysis.curves import ArmCurve, StageCurve, the_chain
from tfscale.plan.arm_kind import arm_kind
from tfscale.text import join

PAPER_BASE, PAPER_SCRATCH = 2_430, 67
"""Tokens per parameter in arXiv 2410.23168. The first number is that of the base (124M parameters, 300B tokens). The
second is that of a TokenFormer of the largest size (1.4B parameters), trained from scratch with the chain's cumulative
compute."""
SAME_REGIME = 2.0
"""Maximum ratio between the tokens per parameter of two runs that count as runs in the same regime."""
SAME_SIZE = 1.25
"""Ratio between the parameter counts of two models below which the models count as equal in size."""
SAME_COMPUTE = 0.03
"""Maximum relative difference between two amounts of compute that count as equal."""


def caption(arms: Sequence[ArmCurve]) -> tuple[str, ...]:
    """Return the sentences of the main figure's caption."""
    chain = the_chain(arms)
    others = [arm.title for arm in arms if arm is not chain]
    against = f" and {join(others)}" if others else ""
    return (
        f"Validation perplexity over cumulative training compute of {chain.title}, a chain that grows from "
        f"{chain.sizes[0]} to {chain.sizes[-1]} parameters,{against}.",
        f"A large mark is the end of a run{', a branch of its trunk' if chain.trunk else ''}. Of two marks at the same "
        "compute, the lower one is better.",
        *regime(arms),
        *_limits(arms),
    )


def regime(arms: Sequence[ArmCurve]) -> tuple[str, ...]:
    """Return sentences that state the tokens per parameter of the base and of the arms from scratch at the chain's
    compute, the chain's rejected growths, the number of seeds, and the size of the validation text."""
    chain = the_chain(arms)
    base = _tokens_per_parameter(chain.replicates(chain.sizes[0]))
    scratch = _from_scratch(arms, chain)
    sentences = []
    if base is not None:
        seen = join([f"{title} {_rounded(ratio)}" for title, ratio in scratch.items()])
        at_last = f" and, at equal compute and {chain.sizes[-1]}, {seen}" if seen else ""
        paper = f"{PAPER_BASE:,}{f' and {PAPER_SCRATCH}' if seen else ''}"
        sentences.append(f"Tokens per parameter: base {_rounded(base)}{at_last} (in the TokenFormer paper {paper}).")
    rejected = dict.fromkeys(stage.size for stage in chain.detours[::2])
    if rejected:
        what = f"A growth to {join(list(rejected))} was rejected, and its parent trained on before it grew again"
        sentences.append(f"{what} (dotted; all costs include both).")
    runs = [run for arm in arms for run in arm.stages if run.finished]
    counts = _seed_counts(arms)
    span = dict.fromkeys((str(counts[0]), str(counts[-1])))
    seeds = "One seed" if counts == [1] else f"{' to '.join(span)} seeds"
    tokens = {run.heldout_tokens for run in runs if run.heldout_tokens}
    blocks = {len(run.blocks.tokens) for run in runs if run.blocks}
    text = f", {max(tokens):,} validation tokens" if len(tokens) == 1 else ""
    return (*sentences, f"{seeds}{text}{f' in {max(blocks)} blocks' if len(blocks) == 1 and text else ''}.")


def _limits(arms: Sequence[ArmCurve]) -> list[str]:
    chain = the_chain(arms)
    single = ["the variation over seeds"] if _seed_counts(arms)[0] == 1 else []
    missing = [*single, "the quality and cost of the tuning of learning rates", "other corpora", "larger models"]
    base = _tokens_per_parameter(chain.replicates(chain.sizes[0]))
    of_its_size = [arm for arm in arms if _is_of_its_size(arm, chain)]
    ratios = [ratio / PAPER_SCRATCH for ratio in _from_scratch(of_its_size, chain).values()]
    if base:
        ratios.append(base / PAPER_BASE)
    sentences = [f"Not shown: {join(missing)}."]
    if any(max(ratio, 1 / ratio) > SAME_REGIME for ratio in ratios):
        sentences.append("The regime is not that of the paper, which is neither confirmed nor refuted.")
    return sentences


def _seed_counts(arms: Sequence[ArmCurve]) -> list[int]:
    """Count the finished seeds for each size of each arm. Return the distinct counts above 0 in increasing order, or
    [1] if no run has finished."""
    finished = {sum(run.finished for run in arm.replicates(size)) for arm in arms for size in arm.sizes} - {0}
    return sorted(finished) or [1]


def _from_scratch(arms: Sequence[ArmCurve], chain: ArmCurve) -> dict[str, float]:
    """Return a mapping from the titles of arms to their tokens per parameter at the chain's last size. It contains the
    arms from scratch whose cumulative compute at this size equals the chain's (`SAME_COMPUTE`)."""
    size = chain.sizes[-1]
    spent = _flops(chain.replicates(size))
    found = {}
    for arm in arms:
        runs = arm.replicates(size)
        ratio, flops = _tokens_per_parameter(runs), _flops(runs)
        equal = spent and flops and abs(flops / spent - 1) <= SAME_COMPUTE
        if arm_kind(arm.kind).from_scratch and equal and ratio is not None:
            found[arm.title] = ratio
    return found


def _is_of_its_size(arm: ArmCurve, chain: ArmCurve) -> bool:
    """Return True if an arm's model of the chain's last size has about as many parameters as the chain's model. This
    excludes the compute-optimal Transformer, whose tokens per parameter follow from a rule."""
    ours, theirs = (
        {run.parameters for run in each.replicates(chain.sizes[-1]) if run.parameters} for each in (chain, arm)
    )
    return bool(ours and theirs) and max(theirs) / max(ours) < SAME_SIZE and max(ours) / max(theirs) < SAME_SIZE


def _tokens_per_parameter(runs: Sequence[StageCurve]) -> float | None:
    ratios = [run.end.totals.tokens / run.parameters for run in runs if run.end and run.parameters]
    return float(np.mean(ratios)) if ratios else None


def _flops(runs: Sequence[StageCurve]) -> float | None:
    ends = [run.end.totals.flops for run in runs if run.end]
    return float(np.mean(ends)) if ends else None


def _rounded(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 9.95 else f"{ratio:.1f}"
