"""Counts of the graphs that torch.compile has compiled since the start of a measurement. The modules of the compiler
are imported on use, because their import takes seconds."""

from collections import Counter

from benchmarks.cuda.findings import NotMeasured
from tfscale.models import cross_entropy


def reset() -> None:
    """Delete compiled code and reset the counts. From then on, a function that exceeds the recompile limit raises an
    error instead of running uncompiled."""
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    _counters("stats").clear()
    _counters("graph_break").clear()
    cross_entropy._fused_softmax.cache_clear()


def graphs() -> int:
    """Return the number of graphs that were compiled since `reset`."""
    return _counters("stats")["unique_graphs"]


def confirm(compiled: bool) -> None:
    """Check that code was compiled since `reset` without graph breaks, or that nothing was compiled.

    Args:
        compiled: True if code must have been compiled.

    Raises:
        NotMeasured: the check failed.
    """
    if compiled != bool(graphs()):
        raise NotMeasured(f"{graphs()} graphs were compiled")
    if breaks := dict(_counters("graph_break")):
        raise NotMeasured(f"compiled code has graph breaks: {breaks}")


def _counters(kind: str) -> Counter[str]:
    from torch._dynamo.utils import counters

    return counters[kind]
