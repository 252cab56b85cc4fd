"""The memory model against what a process takes: the peak of a real training step, each in a process of its own.

    python benchmarks/memory.py [--out memory.json] [--allocator default]

A step is what the training room does: two micro-batches whose gradients add up, then a fused AdamW update; or one, with
every weight updated in the backward pass. The second step is measured, when the moments exist, as the largest resident
memory above that of an interpreter that has trained a tiny model (Linux). glibc gives every allocation above 64 KiB a
mapping of its own here, so that what is freed is free; `--allocator default` leaves it as it is and shows its gaps.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tfscale.models.config import ModelConfig, TokenFormerConfig, TokenGroup, TransformerConfig, default_tau, from_dict
from tfscale.models.config import to_dict as config_to_dict
from tfscale.models.counts import Memory, memory, parameters
from tfscale.models.execution import Execution
from tfscale.models.init import build_model
from tfscale.models.language_model import LanguageModel

EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def tokenformer(n: int, n_layer: int = 12, d: int = 768, heads: int = 12, context: int = 1024) -> TokenFormerConfig:
    """The paper's proportions: n parameter tokens in every projection, 4 n in the feed-forward layer."""
    small, large = ((TokenGroup(count, default_tau("l2_norm_gelu", count)),) for count in (n, 4 * n))
    return TokenFormerConfig(n_layer, d, heads, 50_304, context, small, small, large)


def transformer(n_layer: int = 12, d: int = 768, heads: int = 12, context: int = 1024) -> TransformerConfig:
    """GPT-2's proportions."""
    return TransformerConfig(n_layer, d, heads, 50_304, context, 4 * d)


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
CASES = [
    Case(SMALL_TOKENFORMER, Execution(8)),
    Case(SMALL_TOKENFORMER, Execution(8, recompute="pattention")),
    Case(SMALL_TOKENFORMER, Execution(8, recompute="blocks")),
    Case(SMALL_TOKENFORMER, Execution(8, activation_bytes=2)),
    Case(SMALL_TRANSFORMER, Execution(8)),
    Case(SMALL_TRANSFORMER, Execution(8, recompute="blocks")),
    Case(SMALL_TRANSFORMER, Execution(8, activation_bytes=2)),
    Case(tokenformer(384, 8, 512, 8, 512), Execution(4)),
    Case(transformer(8, 512, 8, 512), Execution(4)),
    Case(tokenformer(576), Execution(1)),
    Case(tokenformer(576), Execution(1, recompute="pattention")),
    Case(tokenformer(576), Execution(1, recompute="blocks", in_backward=True)),
    Case(transformer(), Execution(1)),
    Case(transformer(), Execution(1, in_backward=True)),
]


def measure(case: Case, exact: bool = True) -> int:
    """Peak bytes of a training step above the interpreter's, of a fresh process."""
    told = json.dumps({"config": config_to_dict(case.config), "execution": asdict(case.execution)})
    environment = {**os.environ, **(EXACT if exact else {}), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--case", told]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def peak_of_step(case: Case) -> int:
    """The same, of this process."""
    _train(replace(case.config, n_layer=1, vocab_size=257), replace(case.execution, sequences=1))
    gc.collect()
    before = _status("VmRSS")
    return _train(case.config, case.execution) - before


def _train(config: ModelConfig, execution: Execution) -> int:
    model = build_model(config, seed=0)
    model.recompute = execution.recompute
    update = _in_backward(model) if execution.in_backward else _whole(model)
    micro_batches = 1 if execution.in_backward else 2
    for _ in range(2):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        for _ in range(micro_batches):
            tokens = torch.randint(config.vocab_size, (execution.sequences, config.context))
            with torch.autocast("cpu", torch.bfloat16, enabled=execution.activation_bytes == 2):
                loss = model.loss(tokens, tokens.roll(-1, 1), "sum")
            (loss / tokens.numel()).backward()
            del loss
        update()
    return _status("VmHWM")


def _whole(model: LanguageModel) -> Any:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


def _in_backward(model: LanguageModel) -> Any:
    optimizers = {weight: torch.optim.AdamW([weight], fused=True) for weight in model.parameters()}

    def update(weight: torch.Tensor) -> None:
        assert isinstance(weight, torch.nn.Parameter)
        optimizers[weight].step()
        weight.grad = None

    for weight in model.parameters():
        weight.register_post_accumulate_grad_hook(update)
    return lambda: None


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--allocator", choices=["exact", "default"], default="exact")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case:
        told = json.loads(asked.case)
        print(peak_of_step(Case(from_dict(told["config"]), Execution(**told["execution"]))))
        return
    found = []
    print(f"{'':50}{'measured':>10}{'model':>10}{'ratio':>8}   parts, MB")
    for case in CASES:
        measured, model = measure(case, asked.allocator == "exact"), memory(case.config, case.execution)
        found.append({"case": case.name, "measured": measured, "model": {**asdict(model), "total": model.total}})
        figures = f"{measured / 1e6:10.0f}{model.total / 1e6:10.0f}{model.total / measured:8.3f}"
        print(f"{case.name:50}{figures}   {_parts(model)}", flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _parts(model: Memory) -> str:
    return ", ".join(f"{name} {size / 1e6:.0f}" for name, size in asdict(model).items() if size)


if __name__ == "__main__":
    main()
