"""Variants of PyTorch optimizers that do not import the PyTorch compiler (`torch._dynamo`). The import would take more
than a second in each training process, and tfscale never compiles the optimizer step."""

from inspect import unwrap

import torch


class EagerOptimizer(torch.optim.Optimizer):
    """Base class of optimizers whose methods do not import the PyTorch compiler."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)


class EagerAdamW(EagerOptimizer, torch.optim.AdamW):
    """Variant of torch.optim.AdamW that does not import the PyTorch compiler. The option `differentiable` is not
    supported."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
