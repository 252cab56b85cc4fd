"""Comparison of the memory model (`tfscale.models.counts.memory`) with the peak memory of real training steps on Linux.

Each case runs in a process of its own, with the state and the updates of a training stage. A step has two
micro-batches, or one if weights are updated in the backward pass. In the second step, the first and second moments of
the optimizer exist.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from tfscale.bench.apart import KNOWN, measure_peak, run_apart
from tfscale.bench.rows import Found, Note, Row
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import tokenformer, transformer
from tfscale.doctor.stages import stage
from tfscale.models.config import ModelConfig
from tfscale.models.counts import memory, parameters
from tfscale.models.execution import Execution
from tfscale.stage.layout import Layout
from tfscale.stage.spec import RunSpec
from tfscale.training.device import resolve
from tfscale.training.state import StageState
from tfscale.training.update import build_update
from tfscale.training.world import World

PART = "memory"


@dataclass(frozen=True)
class Case:
    """Model to measure, and execution of its training step."""

    config: ModelConfig
    execution: Execution

    @property
    def name(self) -> str:
        """Name with family, parameters, micro-batch, context and execution."""
        run = self.execution
        how = [run.recompute] * (run.recompute != "none") + ["in_backward"] * run.in_backward
        how += ["bf16"] * (run.activation_bytes == 2)
        size = f"{self.config.family} {parameters(self.config) / 1e6:.0f}M"
        return " ".join([size, f"{run.sequences}x{self.config.context}", *how])


SMALL_TOKENFORMER, SMALL_TRANSFORMER = tokenformer(192, 6, 256, 4, 256), transformer(6, 256, 4, 256)
SMALL = (
    Case(SMALL_TOKENFORMER, Execution(8)),
    Case(SMALL_TOKENFORMER, Execution(8, recompute="pattention")),
    Case(SMALL_TOKENFORMER, Execution(8, recompute="blocks")),
    Case(SMALL_TOKENFORMER, Execution(8, activation_bytes=2)),
    Case(SMALL_TRANSFORMER, Execution(8)),
    Case(SMALL_TRANSFORMER, Execution(8, recompute="blocks")),
    Case(SMALL_TRANSFORMER, Execution(8, activation_bytes=2)),
)
LARGE = (
    Case(tokenformer(384, 8, 512, 8, 512), Execution(4)),
    Case(transformer(8, 512, 8, 512), Execution(4)),
    Case(tokenformer(576), Execution(1)),
    Case(tokenformer(576), Execution(1, recompute="pattention")),
    Case(tokenformer(576), Execution(1, recompute="blocks", in_backward=True)),
    Case(transformer(), Execution(1)),
    Case(transformer(), Execution(1, in_backward=True)),
)


def measure(settings: Settings) -> Iterator[Found]:
    """Measure every case on the CPU."""
    if not KNOWN:
        yield Note(PART, "skipped: the peak memory of a process can only be measured on Linux")
        return
    for case in SMALL if settings.quick else SMALL + LARGE:
        if settings.wants(case.name):
            planned, peak = memory(case.config, case.execution).total, run_apart(measure_training_peak, case)
            figures = {"peak_bytes": peak, "planned_bytes": planned, "share_off": abs(planned / peak - 1)}
            yield Row(PART, case.name, "training", (), figures)


def measure_training_peak(case: Case) -> int:
    """Return the peak memory in bytes of training in this process."""
    torch.set_num_threads(1)
    tiny = Case(replace(case.config, n_layer=1, vocab_size=257), replace(case.execution, sequences=1))
    return measure_peak(partial(_train, case), partial(_train, tiny))


def _train(case: Case) -> None:
    run = case.execution
    micro_batches = 1 if run.in_backward else 2
    settings = RunSpec(
        data_dir="",
        device="cpu",
        precision="bf16" if run.activation_bytes == 2 else "fp32",
        update="in_backward" if run.in_backward else "whole",
    )
    spec = stage(case.config, settings, steps=2, sequences=micro_batches * run.sequences, lr=1e-4)
    device, world = resolve(settings), World()
    state = StageState(spec, device, world, Layout("none", run.recompute, run.sequences, 1, "set"))
    state.reset()
    update = build_update(state, spec, late=False)
    for _ in range(spec.steps):
        total = torch.zeros(())
        for _ in range(micro_batches):
            tokens = torch.randint(case.config.vocab_size, (run.sequences, case.config.context))
            with device.autocast():
                loss = state.objective(tokens, tokens.roll(-1, 1)) / spec.batch_tokens
            update.backward(loss)
            total += loss.detach()
            del loss
        update.finish(total)
