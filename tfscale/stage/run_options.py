"""Options of how a stage is run, as a user sets them (`launcher.*`) and as `stage.yaml` says them (`run`)."""

from dataclasses import dataclass
from typing import Literal

from tfscale.ranges import Amount, AutoCount, Count, Natural, NonNegative


@dataclass(frozen=True)
class RunOptions:
    """Options that change nothing of what a stage computes, beyond rounding. They may change between resumes."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on CUDA, fp32 on the CPU; weights and moments are always fp32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """auto: torch.compile on CUDA, eager on the CPU."""
    threads: Natural = 0
    """CPU threads of each process; 0: its share of the machine's cores, or slurm.cpus."""
    micro_batch: AutoCount = 0
    """Sequences that a device holds at once; auto: as many of a batch as fit. Gradients accumulate over the
    micro-batches of a batch."""
    activation_checkpointing: Literal["auto", "none", "pattention", "blocks"] = "auto"
    """The part of the model whose activations the backward pass computes again instead of storing them. auto: none,
    unless one sequence would not fit otherwise."""
    sharding: Literal["auto", "none", "full", "hybrid"] = "auto"
    """Sharding of the model over several processes. none: each has the whole model (DDP). full: sharded over all
    processes (FSDP2). hybrid: sharded over the processes of each host (HSDP). auto: none if the whole model fits,
    otherwise full."""
    update: Literal["whole", "in_backward"] = "whole"
    """in_backward: weights are updated inside the backward pass and gradients dropped at once, for little memory; it
    needs the whole batch as one micro-batch, one process and optim.clip=0."""
    log_tokens: Amount = 0
    """Tokens between two logged training metrics; 0: log 100 times per stage."""
    eval_tokens: Amount = 0
    """Tokens between two evaluations; 0: ten per stage, or as few as take a tenth of its training, five at least. The
    end of a stage is always evaluated, and a grown model before its first step."""
    checkpoint_minutes: NonNegative = 10.0
    checkpoint_tokens: Amount = 0
    """Tokens between two checkpoints, beside those by time; 0: by time alone."""
    keep: Count = 2
    """Checkpoints that are kept while a stage runs. The last one is kept for good."""
    keep_tokens: Amount = 0
    """Checkpoints at multiples of so many tokens are kept for good; 0: none but the last."""
    non_finite: Literal["raise", "skip", "rollback"] = "raise"
    """Policy for a non-finite loss or gradient: stop before the update, leave the update out, or go back to the last
    checkpoint and past the batch."""
    non_finite_cap: Count = 10
    """More such steps than this end a stage, whatever the policy."""
