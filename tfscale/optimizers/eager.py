"""Optimizers of torch whose methods do not import torch's compiler.

torch keeps its compiler out of some of these methods, and imports it to do so. This takes more than a second in each
process that trains, even if nothing is compiled. tfscale never compiles an update.
"""

from inspect import unwrap

import torch


class EagerOptimizer(torch.optim.Optimizer):
    """Base of optimizers whose `step` does not need the compiler."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)


class EagerAdamW(EagerOptimizer, torch.optim.AdamW):
    """torch.optim.AdamW without gradients through its updates (`differentiable`)."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
