"""Optimizers of torch whose methods do not import torch's compiler, which takes more than a second in each training
process. torch imports it to exclude some methods from compilation, but tfscale never compiles an update."""

from inspect import unwrap

import torch


class EagerOptimizer(torch.optim.Optimizer):
    """Base class of optimizers whose methods do not import torch's compiler."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)


class EagerAdamW(EagerOptimizer, torch.optim.AdamW):
    """torch.optim.AdamW whose methods do not import torch's compiler. The option `differentiable` is not supported."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
