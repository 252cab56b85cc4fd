"""Options for running a stage, as a user sets them (`launcher.*`) and as `stage.yaml` stores them (`run`)."""

from dataclasses import dataclass
from typing import Literal

from tfscale.ranges import Amount, AutoCount, Count, Natural, NonNegative

Precision = Literal["fp32", "tf32", "bf16"]
"""Precision of matrix products. tf32: products of float32 matrices whose mantissas are rounded to 10 bits. bf16: bf16
autocast."""


@dataclass(frozen=True)
class RunOptions:
    """Options that do not change what a stage computes, apart from rounding and the handling of non-finite steps. The
    options may change when a stage is resumed."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device that the stage is trained on. auto: CUDA if available, otherwise the CPU."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Precision of forward and backward passes; weights and moments are always fp32. fp32: all in float32. tf32: as
    fp32, but matrices are multiplied in TF32, which is available only on CUDA. bf16: bf16 autocast. auto: bf16 on CUDA,
    fp32 on a CPU."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Use of torch.compile. auto: on for CUDA, off for a CPU."""
    deterministic: bool = False
    """True to use only deterministic algorithms on CUDA, so that a stage that is resumed or repeated on the same kind
    of device gives the same numbers bit for bit. With false, the numbers are equal up to rounding. Training on a CPU is
    always deterministic. The default is false because the cost has not been measured yet."""
    kernels: Literal["compiled", "triton"] = "compiled"
    """Kernels of the norm and GELU in Pattention on CUDA. compiled: kernels that torch.compile generates. triton:
    Triton kernels of tfscale, which keep one value per score for the backward pass instead of two. The Triton kernels
    apply to norm_activation=l2_norm_gelu and have not been measured on CUDA yet."""
    threads: Natural = 0
    """Number of CPU threads of each process. 0: slurm.cpus with Slurm, otherwise an equal share of the cores of the
    machine."""
    micro_batch: AutoCount = 0
    """Number of sequences that a device processes at once; auto: the whole batch of the device, halved until it fits in
    memory. Gradients accumulate over the micro-batches of a batch."""
    activation_checkpointing: Literal["auto", "none", "pattention", "blocks"] = "auto"
    """Part of the model whose activations are recomputed in the backward pass instead of being stored. none: no part.
    pattention: the scores of every Pattention. blocks: all activations inside each block. auto: none, unless one
    sequence would not fit in memory otherwise."""
    sharding: Literal["auto", "none", "full", "hybrid"] = "auto"
    """Sharding of the model over several processes. none: each process has the whole model (DDP). full: the model is
    sharded over all processes (FSDP2). hybrid: the model is sharded over the processes of each host (HSDP). auto: none
    if the whole model fits, otherwise full."""
    update: Literal["whole", "in_backward"] = "whole"
    """Method of updating the weights. whole: all weights are updated after the backward pass. in_backward: each weight
    is updated, and its gradient freed, during the backward pass. This method saves memory but requires the whole batch
    as one micro-batch, one process and optim.clip=0."""
    log_tokens: Amount = 0
    """Number of tokens between two log entries of the training metrics; 0: 100 entries per stage."""
    eval_tokens: Amount = 0
    """Number of tokens between two evaluations; 0: ten evaluations per stage, or fewer if they would cost more than a
    tenth of the training, but at least five. The end of a stage and a grown model before the first step are always
    evaluated."""
    checkpoint_minutes: NonNegative = 10.0
    """Number of minutes between two checkpoints."""
    checkpoint_tokens: Amount = 0
    """Number of tokens between two checkpoints, in addition to checkpoint_minutes; 0: checkpoints by time only."""
    keep: Count = 2
    """Number of checkpoints that are kept while a stage runs. The last checkpoint is kept permanently."""
    keep_tokens: Amount = 0
    """Number of tokens between two checkpoints that are kept permanently; 0: only the last checkpoint is kept
    permanently."""
    non_finite: Literal["raise", "skip", "rollback"] = "raise"
    """Policy for a non-finite loss or gradient. raise: stop the stage with an error. skip: skip the update. rollback:
    return to the last checkpoint and skip the batch."""
    non_finite_cap: Count = 10
    """Maximum number of steps with a non-finite loss or gradient. If there are more, the stage fails under any
    policy."""

    def precision_on(self, device: str) -> Precision:
        """Return the precision of matrix products on the torch device type `device`. `auto` is replaced by bf16 on CUDA
        and by fp32 on a CPU."""
        return self.precision if self.precision != "auto" else "bf16" if device == "cuda" else "fp32"

    def compiles(self, device: str) -> bool:
        """Return whether torch.compile is used on the torch device type `device`."""
        return self.compile == "on" or (self.compile == "auto" and device == "cuda")
