"""Nested dropout of groups of parameter tokens, similar to nested dropout of units (Rippel et al., arXiv 1402.0915). In
some steps only the first groups are used, so that the models that consist of only the first groups also become
usable."""

import torch

from tfscale.models.first_groups import number_of_groups
from tfscale.models.init import stream
from tfscale.stage.spec import StageSpec


def groups_at(spec: StageSpec, step: int) -> int | None:
    """Return the number of leading groups that a step of a stage uses, or None for all groups. The number is a pure
    function of the seed and the step, so it is the same on all ranks and in a resumed stage."""
    if spec.nested_dropout == 0:
        return None
    drawn, place = torch.rand(2, generator=stream(spec.seed, f"nested_dropout:{step}"), dtype=torch.float64).tolist()
    return 1 + int(place * (number_of_groups(spec.model) - 1)) if drawn < spec.nested_dropout else None
