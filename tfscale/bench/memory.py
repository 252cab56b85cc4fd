"""The memory model (`tfscale.models.counts.memory`) against what a process takes: the peak of a real training step,
each in a process of its own (Linux).

A step is what the training room does: two micro-batches whose gradients add up, then a fused AdamW update; or one, with
every weight updated in the backward pass. The second step is measured, when the moments exist, as the largest resident
memory above that of an interpreter that has trained a tiny model.
"""

import gc
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import torch

from tfscale.bench.apart import KNOWN, apart, exact_memory, peak_above
from tfscale.bench.rows import Found, Note, Row, Rows, Verdict
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import tokenformer, transformer
from tfscale.models.config import ModelConfig
from tfscale.models.counts import memory, parameters
from tfscale.models.execution import Execution
from tfscale.models.init import build_model
from tfscale.models.language_model import LanguageModel

PART = "memory"
MEASURED, MODEL = "measured", "memory model"


@dataclass(frozen=True)
class Case:
    """One measurement."""

    config: ModelConfig
    execution: Execution

    @property
    def name(self) -> str:
        """Family, parameters, context, micro-batch and how it is run."""
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
    """Every case, on the CPU."""
    if not KNOWN:
        yield Note(PART, "left out: the peak of a process is read from Linux's /proc")
        return
    for case in SMALL if settings.quick else SMALL + LARGE:
        if settings.wants(case.name):
            model = memory(case.config, case.execution)
            yield Row(PART, case.name, MEASURED, (), {"peak_bytes": apart(peak_of_step, case)})
            yield Row(PART, case.name, MODEL, (), {"peak_bytes": model.total, **_parts(asdict(model))})


def _parts(sizes: dict[str, int]) -> dict[str, float]:
    return {f"{name}_bytes": size for name, size in sizes.items()}


def peak_of_step(case: Case) -> int:
    """Peak bytes of a training step above the interpreter's, of a process that does nothing else."""
    torch.set_num_threads(1)
    exact_memory()
    tiny = Case(replace(case.config, n_layer=1, vocab_size=257), replace(case.execution, sequences=1))
    _steps(tiny)()
    gc.collect()
    return peak_above(_steps(case))


def _steps(case: Case) -> Callable[[], None]:
    def train() -> None:
        model = build_model(case.config, seed=0)
        model.recompute = case.execution.recompute
        update = _in_backward(model) if case.execution.in_backward else _whole(model)
        for _ in range(2):
            _step(case, model, 1 if case.execution.in_backward else 2)
            update()

    return train


def _step(case: Case, model: LanguageModel, micro_batches: int) -> None:
    for _ in range(micro_batches):
        tokens = torch.randint(case.config.vocab_size, (case.execution.sequences, case.config.context))
        with torch.autocast("cpu", torch.bfloat16, enabled=case.execution.activation_bytes == 2):
            loss = model.loss(tokens, tokens.roll(-1, 1), "sum")
        (loss / tokens.numel()).backward()
        del loss


def _whole(model: LanguageModel) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


def _in_backward(model: LanguageModel) -> Callable[[], None]:
    optimizers = {weight: torch.optim.AdamW([weight], fused=True) for weight in model.parameters()}

    def update(weight: torch.Tensor) -> None:
        assert isinstance(weight, torch.nn.Parameter)
        optimizers[weight].step()
        weight.grad = None

    for weight in model.parameters():
        weight.register_post_accumulate_grad_hook(update)
    return lambda: None


def verdicts(rows: Rows, settings: Settings) -> Iterator[Verdict]:
    """How far the model is off."""
    for row in rows.of(PART):
        if row.name == MODEL and (measured := rows.get(PART, row.case, MEASURED)):
            off = abs(row.figures["peak_bytes"] / measured.figures["peak_bytes"] - 1)
            yield Verdict(PART, f"{row.case}: the model is off by", off, 0.1, False)
