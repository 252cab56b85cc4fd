"""Counts of what torch.compile has done since a measurement began. Its modules take seconds to import, so they are
imported when a measurement begins."""

from collections import Counter

from benchmarks.cuda.failures import NotMeasured
from tfscale.models import cross_entropy


def forget() -> None:
    """Forgets what has been compiled. From now on a function that is compiled too often raises an error, rather than
    running uncompiled."""
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    _counters("stats").clear()
    _counters("graph_break").clear()
    cross_entropy._fused_softmax.cache_clear()


def graphs() -> int:
    """Graphs that were compiled since `forget`."""
    return _counters("stats")["unique_graphs"]


def confirm(compiled: bool) -> None:
    """Make sure that something was compiled since `forget`, in whole graphs; or that nothing was.

    Raises:
        NotMeasured: it was otherwise.
    """
    if compiled != bool(graphs()):
        raise NotMeasured(f"{graphs()} graphs were compiled")
    if breaks := dict(_counters("graph_break")):
        raise NotMeasured(f"compiled code is in pieces: {breaks}")


def _counters(kind: str) -> Counter[str]:
    from torch._dynamo.utils import counters

    return counters[kind]
