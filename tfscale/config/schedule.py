"""Settings of the schedule: the stages of the chain, the rules that end a stage or reject a growth, and the
branches."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from tfscale.ranges import Amount, Count, Nats, Range, Rate, Share

Excess = Annotated[float, Range(above=-10, below=10, what="nats of loss", such_as="0.1")]
"""A difference of losses in nats, above -10 and below 10."""

Halvings = Annotated[int, Range(0, 10, what="a number of halvings", such_as="3")]
"""A number of times that a budget is halved, from 0 to 10."""


@dataclass(frozen=True)
class TransformerPart:
    """Shape and learning rate of a Transformer baseline with about as many parameters as the model of a stage."""

    n_layer: Count
    """Number of layers."""
    d_model: Count
    """Width of the residual stream."""
    n_head: Count
    """Number of attention heads."""
    d_ff: Count | None = None
    """Width of the hidden layer of the feed-forward block. None: four times d_model."""
    lr: Rate | None = None
    """Peak learning rate of the Transformer when trained from scratch. None: optim.lr."""


@dataclass(frozen=True)
class StagePart:
    """Settings of one stage of the chain, and of the models that baselines train at the same size."""

    size: str
    """Name of the size, such as 354M."""
    qkv: Count
    """Number of parameter tokens in each of the query, key and value projections."""
    out: Count | None = None
    """Number of parameter tokens in the attention's output projection. None: qkv."""
    ffn: Count | None = None
    """Number of parameter tokens in the feed-forward layer. None: four times qkv."""
    tokens: Amount | None = None
    """Number of training tokens of the stage. None: schedule.growth_tokens."""
    lr: Rate | None = None
    """Peak learning rate of the stage. None: optim.lr."""
    scratch_lr: Rate | None = None
    """Peak learning rate of a TokenFormer of this size that is trained from scratch. None: optim.lr."""
    transformer: TransformerPart | None = None
    """Transformer baseline at this size. None: no baseline."""
    shapes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Models from the families that extensions register, by family name. Each entry contains the fields of a model's
    config and, optionally, its peak learning rate `lr`."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of parameter tokens as a tuple (qkv, out, ffn), in which None has been replaced by the default."""
        out = self.out if self.out is not None else self.qkv
        ffn = self.ffn if self.ffn is not None else 4 * self.qkv
        return self.qkv, out, ffn


@dataclass(frozen=True)
class GrowWhenPart:
    """Rule that ends a stage of the chain, so that the next stage can begin (`tfscale.stage.ending`)."""

    rule: Literal["budget", "plateau", "predicted_gain"] = "budget"
    """Condition that ends a stage. `budget`: the stage's tokens are used up. `plateau`: the validation loss falls by
    less than `min_delta` over `patience` evaluations. `predicted_gain`: a curve fitted to the validation loss predicts
    that the remaining budget lowers the loss by less than `min_delta`. With `plateau` and `predicted_gain`, the budget
    is an upper limit, except for the last stage, which uses its whole budget. These two rules require
    optim.lr_schedule=constant or wsd. With wsd, the final decay begins when the condition is met, and the stage ends
    after the decay."""
    eval_every: Amount = 0
    """Number of tokens between two evaluations for the rule; 0: a twentieth of the stage's budget."""
    min_delta: Nats = 0.02
    """Smallest improvement of the validation loss, in nats per token, with which a stage continues. `rule` determines
    how the improvement is measured."""
    patience: Count = 4
    """Number of evaluations over which the improvement is measured (rule=plateau), or smallest number of evaluations to
    which the curve is fitted, at least four (rule=predicted_gain)."""


@dataclass(frozen=True)
class RejectGrowthPart:
    """Settings of the test that accepts or rejects the first growth to each size (`tfscale.plan.rejection`)."""

    after_tokens: Amount
    """Number of training tokens after which the validation loss of a grown model is tested. Allowed values are from one
    batch to one batch less than the tokens of the stage."""
    bound: Excess
    """Largest allowed excess of the grown model's validation loss over the parent's last validation loss, in nats."""


@dataclass(frozen=True)
class BranchesPart:
    """Settings of branches. The trunk from which branches start keeps one learning rate through all growths
    (`tfscale.plan.branches`)."""

    fraction: Share = 0.2
    """Number of tokens of a branch, as a fraction of the tokens that the trunk has used at the same size. The learning
    rate falls linearly to 0 over the tokens of the branch."""
    readings: Literal["own", "all"] = "own"
    """Budgets at which a run from scratch has a branch. `own`: only the budget of its own size. `all`: the budget of
    every size of the chain, so that costs at equal perplexity are read from models whose learning rate has decayed."""
    smaller_readings: Halvings = 0
    """Number of additional, smaller budgets at which a run from scratch has a branch (readings=all). The largest of
    them is half of the chain's smallest budget, and each further budget is half of the previous one. Costs at
    perplexities that an arm reaches with less than the chain's smallest budget are then also read from models whose
    learning rate has decayed. The warm-up ends at the latest where the first branch starts."""


@dataclass(frozen=True)
class SchedulePart:
    """Stages of the chain, with the rules that end a stage or reject a growth, and the settings of branches."""

    name: str
    """Name of the schedule, used in the tracking store and in comparisons."""
    stages: dict[str, StagePart]
    """Stages of the chain in order, by name. The first stage is trained from scratch, and each later stage grows from
    the previous one."""
    growth_tokens: Amount = 0
    """Number of training tokens of every stage that does not set `tokens`."""
    grow_when: GrowWhenPart = field(default_factory=GrowWhenPart)
    """Rule that ends every stage except the last."""
    reject_growth: RejectGrowthPart | None = None
    """Rule that rejects the first growth to a size if the validation loss of the grown model is too high after a given
    number of tokens. The training of the parent is then continued for the planned tokens of the rejected stage, and the
    parent grows again. None: every growth is kept."""
    branches: BranchesPart | None = None
    """Settings of branches. With branches, the stages of an arm form a trunk without decay of the learning rate, all
    stages of the chain have the learning rate of the first stage, and the models at the ends of the branches are
    compared. None: the models at the ends of the stages are compared."""
    trained_on_lr: Rate | None = None
    """Peak learning rate of continued training of the chain's first model. None: optim.lr."""
    rehearse: bool = False
    """True to train each stage for only three steps, on text that is installed with tfscale. The results are written to
    the folder `rehearsal` in the runs folder. Model, batch, optimizer, growth and processes are those of the real
    run."""
