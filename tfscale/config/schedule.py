"""Settings of the schedule: the stages of the chain, and the rules that end, reject or branch them."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from tfscale.ranges import Amount, Count, Nats, Range, Rate, Share

Excess = Annotated[float, Range(above=-10, below=10, what="nats of loss", such_as="0.1")]
"""A difference of losses in nats, above -10 and below 10."""

Halvings = Annotated[int, Range(0, 10, what="a number of halvings", such_as="3")]
"""A number of times that a budget is halved, from 0 to 10."""


@dataclass(frozen=True)
class TransformerPart:
    """Transformer baseline of about the same size as a stage."""

    n_layer: Count
    """Number of layers."""
    d_model: Count
    """Width of the residual stream."""
    n_head: Count
    """Number of attention heads."""
    d_ff: Count | None = None
    """Width of the feed-forward layer. None: four times d_model."""
    lr: Rate | None = None
    """Peak learning rate of the Transformer when trained from scratch. None: optim.lr."""


@dataclass(frozen=True)
class StagePart:
    """One stage of the chain, with the size of its model."""

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
    """Models of the families that extensions register, by family. Each is given by the fields of its config and
    `lr`."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of parameter tokens in (each of q, k, v; output; feed-forward), with defaults filled in."""
        out = self.out if self.out is not None else self.qkv
        ffn = self.ffn if self.ffn is not None else 4 * self.qkv
        return self.qkv, out, ffn


@dataclass(frozen=True)
class GrowWhenPart:
    """Rule that ends a stage of the chain, so that the next stage can grow from it (`tfscale.stage.ending`)."""

    rule: Literal["budget", "plateau", "predicted_gain"] = "budget"
    """Condition that ends a stage. `budget`: the stage's tokens are used up. `plateau`: the validation loss falls by
    less than `min_delta` over `patience` evaluations. `predicted_gain`: a curve fitted to the validation loss predicts
    that the remaining budget lowers the loss by less than `min_delta`. With `plateau` and `predicted_gain`, the budget
    is an upper limit, except for the last stage, which uses its whole budget. optim.lr_schedule must then be constant,
    or wsd, whose decay starts when the rule ends the stage."""
    eval_every: Amount = 0
    """Number of tokens between two evaluations for the rule; 0: a twentieth of the stage's budget."""
    min_delta: Nats = 0.02
    """Smallest improvement of the validation loss, in nats, that keeps a stage running; see `rule`."""
    patience: Count = 4
    """Number of evaluations over which the improvement is measured (rule=plateau), or smallest number of evaluations to
    which the curve is fitted, at least four (rule=predicted_gain)."""


@dataclass(frozen=True)
class RejectGrowthPart:
    """Settings of the test that accepts or rejects each growth (`tfscale.plan.rejection`)."""

    after_tokens: Amount
    """Number of training tokens after which the validation loss of a grown model is tested. It must be less than the
    number of tokens of the stage."""
    bound: Excess
    """Largest allowed excess of the grown model's validation loss over the parent's last validation loss, in nats."""


@dataclass(frozen=True)
class BranchesPart:
    """Branches of a trunk, which keeps one learning rate through all growths (`tfscale.plan.branches`)."""

    fraction: Share = 0.2
    """Tokens of a branch as a fraction of the tokens of its trunk's stage. The learning rate falls linearly to 0 over
    the tokens of the branch."""
    readings: Literal["own", "all"] = "own"
    """Budgets at which runs from scratch have a branch. `own`: the budget of their own size. `all`: the budget of every
    size of the chain, as branches of one trunk, so that costs at equal perplexity are read from models whose learning
    rate has decayed."""
    smaller_readings: Halvings = 0
    """Number of further budgets below the chain's smallest one, each of them half of the next larger one, at which runs
    from scratch have a branch with `readings=all`. With them, costs can also be read at perplexities that an arm
    reaches before the chain's smallest budget. The warm-up is at most as long as the smallest budget."""


@dataclass(frozen=True)
class SchedulePart:
    """Stages of the chain, and the rules that end or reject them."""

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
    """Rule that rejects the first growth to a size if the validation loss is too high after some tokens. The training
    of the parent is then continued for the tokens of the stage, and the parent grows again. None: every growth is
    kept."""
    branches: BranchesPart | None = None
    """Settings of branches. With branches, the stages of every run are a trunk with the learning rate of the first
    stage, and the models at the ends of the branches are compared. None: the models at the ends of the stages are
    compared."""
    trained_on_lr: Rate | None = None
    """Peak learning rate of continued training of the chain's first model. None: optim.lr."""
    rehearse: bool = False
    """True to train each stage for only three steps, on embedded text and in runs/rehearsal. Model, batch, optimizer,
    growth and processes are those of the real run."""
