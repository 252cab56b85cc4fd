"""The shape of a composed experiment. Each class is one part of the configuration; each field's docstring is its
documentation."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from tfscale.config.by_kind import ByKind
from tfscale.config.machines import DevicePart, LauncherPart
from tfscale.config.types import PathText
from tfscale.growth.operator import Growth
from tfscale.growth.transformer_recipe import TransformerGrowth
from tfscale.models.config import Init
from tfscale.models.parameter_tokens import NormActivation
from tfscale.ranges import (
    Amount,
    AutoCount,
    Count,
    Factor,
    Fraction,
    Momentum,
    Nats,
    NonNegative,
    Range,
    Rate,
    Share,
    Whole,
)

NoiseFloor = Annotated[float, Range(least=0, below=10, what="nats of loss", such_as="0.005")]
"""A difference of losses, at least 0 and below 10."""
AnyGrowth = Annotated[Growth, ByKind("tokens")]
"""Settings of a growth operator."""
MOST_SEEDS = 1000
Replicates = Annotated[int, Range(1, MOST_SEEDS, such_as="3")]
"""A number of replicates, from 1 to 1000."""


@dataclass(frozen=True)
class ModelPart:
    """Settings that all stages of the chain share."""

    n_layer: Count
    d_model: Count
    n_head: Count
    context: Count
    """Tokens per sequence, in training and in evaluation."""
    vocab_size: Count | None = None
    """Rows of the embedding; at least the tokenizer's. None: the tokenizer's own size."""
    rotary: Fraction = 0.25
    """Fraction of the head dimensions that rotate; 0: no positions."""
    norm_activation: NormActivation = "l2_norm_gelu"
    init: Init = "official"
    """First weights, of every arm: as in the official configs, or scaled with width and depth for small models."""


@dataclass(frozen=True)
class TransformerPart:
    """The Transformer of about a stage's size that it is compared with."""

    n_layer: Count
    d_model: Count
    n_head: Count
    d_ff: Count | None = None
    """Width of the feed-forward layer. None: four times d_model."""
    lr: Rate | None = None
    """Peak learning rate of its run from scratch. None: optim.lr."""


@dataclass(frozen=True)
class StagePart:
    """One stage of the chain, and the size of its model."""

    size: str
    """Name of the size, such as 354M."""
    qkv: Count
    """Parameter tokens of each of the query, key and value projections."""
    out: Count | None = None
    """Parameter tokens of the attention's output projection. None: as many as qkv."""
    ffn: Count | None = None
    """Parameter tokens of the feed-forward layer. None: four times qkv."""
    tokens: Amount | None = None
    """Training tokens of the stage. None: schedule.growth_tokens."""
    lr: Rate | None = None
    """Peak learning rate of the stage. None: optim.lr."""
    scratch_lr: Rate | None = None
    """Peak learning rate of a TokenFormer of this size from scratch. None: optim.lr."""
    transformer: TransformerPart | None = None
    """The Transformer baseline at this size. None: there is none."""
    shapes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Models of other families at this size, by family: fields of their configs, and `lr`."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """Parameter tokens of (each of q, k, v; output; feed-forward), defaults filled in."""
        out = self.out if self.out is not None else self.qkv
        ffn = self.ffn if self.ffn is not None else 4 * self.qkv
        return self.qkv, out, ffn


@dataclass(frozen=True)
class GrowWhenPart:
    """The rule that ends a stage of the chain, so that the next one grows out of it (`tfscale.stage.ending`)."""

    rule: Literal["budget", "plateau", "predicted_gain"] = "budget"
    """`budget`: after the stage's tokens. `plateau`: as soon as the validation loss falls by less than `min_delta` over
    `patience` evaluations. `predicted_gain`: as soon as a curve fitted to it says that the rest of the budget would
    lower it by less than `min_delta`. With a rule the budget is the most that a stage gets; the last stage, which
    nothing grows out of, gets all of its own. Needs optim.lr_schedule=wsd, whose decay then follows, or constant."""
    eval_every: Amount = 0
    """Tokens between two evaluations by the rule; 0: a twentieth of the stage's budget."""
    min_delta: Nats = 0.02
    """Smallest improvement of the validation loss that counts, in nats; see `rule`."""
    patience: Count = 4
    """plateau: number of evaluations over which the improvement is measured. predicted_gain: smallest number of
    evaluations to fit the curve to, at least four."""


@dataclass(frozen=True)
class SchedulePart:
    """The chain."""

    name: str
    """Name of the experiment in the tracking store and in comparisons."""
    stages: dict[str, StagePart]
    """Stages in order. The first is trained from scratch; each later one grows out of the one before it."""
    growth_tokens: Amount = 0
    """Training tokens of every stage that does not state its own."""
    grow_when: GrowWhenPart = field(default_factory=GrowWhenPart)
    """Rule that ends every stage except the last."""
    trained_on_lr: Rate | None = None
    """Peak learning rate at which the small model is trained on. None: optim.lr."""
    rehearse: bool = False
    """Three steps per stage on embedded text, in runs/rehearsal; everything else is as in the real run."""


@dataclass(frozen=True)
class DataPart:
    """The text and its tokens."""

    source: str
    """Kind of text: wiki, docs, text, hub, shards, or one that an extension registers."""
    path: PathText | None = None
    """File or folder, for `text` and `shards`. For `hub`: a folder that is read instead, where it is there."""
    text_key: str = "text"
    """Field of a JSON line, or column of Parquet, that holds the document."""
    dataset: str | None = None
    """hub: the data set's repository."""
    subset: str | None = None
    """hub: None is the only one, or the data set's default."""
    split: str = "train"
    """hub: split of the dataset; the validation documents are taken from it too."""
    revision: str = "main"
    """hub: branch, tag or commit; looked up once, when it is fetched."""
    tokenizer: Literal["bpe", "file", "hub"] = "bpe"
    """`bpe`: a byte-level BPE learnt from the training documents. `file`: a Hugging Face tokenizer.json. `hub`: one
    of the hub."""
    tokenizer_name: str | None = None
    """hub: a repository, or gpt2, or gpt_neox_20b."""
    tokenizer_path: PathText | None = None
    """The tokenizer.json; for `hub`, one that is taken instead, where it is there."""
    vocab_size: Count = 4096
    """Entries of a learnt BPE; 257 is bytes and the end of text."""
    validation: Share = 0.05
    """Fraction of the documents that are never trained on."""
    split_seed: Whole = 0
    validation_tokens: Amount = 65_536
    """Number of validation tokens that every evaluation reads; always the same ones."""
    validation_start: Amount = 0
    """Position of the first validation token that is read. `tfscale tune` uses the tokens after those evaluated
    here."""
    shuffle_seed: Whole = 0
    """Random seed of the order in which training tokens are read; the same in every arm."""
    workers: AutoCount = 0
    """Processes that prepare the corpus; auto: one per core. The result does not depend on it."""
    max_unknown: Fraction = 0.01
    """Largest share of tokens that the tokenizer may have no entry for. A corpus with more is refused; one with fewer
    is used, with a warning."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings that the source has beside those above."""


@dataclass(frozen=True)
class OptimPart:
    """The optimizer and its learning-rate schedule, of every stage."""

    lr: Rate
    batch_tokens: Amount
    """Tokens per optimizer step, over all devices."""
    lr_schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup: Fraction = 0.01
    """Fraction of the stage over which the learning rate rises."""
    min_lr_ratio: Fraction = 0.1
    """Last learning rate as a fraction of the peak (cosine, wsd)."""
    decay_fraction: Fraction = 0.2
    """Last fraction of the stage over which it falls (wsd)."""
    beta1: Momentum = 0.9
    beta2: Momentum = 0.95
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.1
    clip: NonNegative = 1.0
    """Largest gradient norm; 0: no clipping."""
    name: str = "adamw"
    """Name of the optimizer: adamw, or one that an extension registers."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings that the named optimizer has beside those above."""


@dataclass(frozen=True)
class ArmPart:
    """Another way of getting to the same sizes."""

    kind: str
    """`scratch`: a model of each size, from scratch. `trained_on`: the chain's first model goes on training.
    `one_jump`: it grows to each size at once. `chain`: another chain out of it, with other settings. Or one that an
    extension registers."""
    title: str
    """Title of the arm in legends and tables."""
    family: str = "tokenformer"
    """tokenformer, transformer, or a family that an extension registers."""
    budget: Literal["cumulative_compute", "stage_tokens", "base_tokens"] = "cumulative_compute"
    """`cumulative_compute`: the FLOPs that the chain has cost up to that size, base included. `stage_tokens`: the
    tokens of the chain's stage of that size; `base_tokens`: those of its first stage (both scratch only)."""
    sizes: Literal["all", "last"] = "all"
    """Sizes of the schedule at which the arm has stages. Only `scratch` has the first size. A chain has all sizes."""
    lr: Rate | None = None
    """Peak learning rate of all that the arm trains itself, apart from the first model of a chain. None: what the
    schedule says for such a model of that size."""
    shape: Literal["schedule", "compute_optimal"] = "schedule"
    """Shape of Transformers from scratch. `schedule`: that of the schedule for the size. `compute_optimal`: the
    size that is best trained with the budget, at 20 tokens per parameter (`tfscale.plan.compute_optimal`)."""
    growth: AnyGrowth | None = None
    """Growth operator of `one_jump` and `chain`. None: the chain's own."""
    growth_tokens: Factor = 1.0
    """`chain`: factor of the tokens of every grown stage."""
    transformer_growth: TransformerGrowth | None = None
    """Growth of a `chain` with family=transformer, which begins with the first size's Transformer and grows
    to shapes of its own (`tfscale.growth.transformer_recipe`), at the chain's cumulative compute."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of a kind that an extension registers."""


@dataclass(frozen=True)
class BaselinePart:
    """The arms beside the chain."""

    arms: dict[str, ArmPart] = field(default_factory=dict)


@dataclass(frozen=True)
class TrackingPart:
    """The tracker, which mirrors what the stages' folders say."""

    enabled: bool = True
    kind: str = "mlflow"
    """A registered tracker: mlflow, or one of an extension."""
    uri: str | None = None
    """URI of the tracker; for MLflow, any of its tracking URIs. None: the tracker's default, which for MLflow is a
    SQLite store in the runs folder."""


@dataclass(frozen=True)
class AnalysisPart:
    """Facts that a comparison needs and that the runs do not hold."""

    noise_floor: NoiseFloor | None = None
    """Difference in the last loss, in nats, below which two runs count as equal if no run has several seeds to measure
    it. None: not known, and every difference is taken as it is."""
    tuning_flops: NonNegative | None = None
    """FLOPs that choosing the arms' learning rates has cost (`tfscale tune --write` writes it down); no cost of a
    comparison includes them. None: not stated."""


@dataclass(frozen=True)
class ReferencePart:
    """Published points that a comparison shows beside its own."""

    name: str = "none"
    title: str = ""
    arms: list[dict[str, Any]] = field(default_factory=list)
    """Published arms, in the form that `tfscale.analysis.reference` reads."""


@dataclass(frozen=True)
class Experiment:
    """All settings of a command."""

    schedule: SchedulePart
    model: ModelPart
    data: DataPart
    optim: OptimPart
    growth: AnyGrowth
    baseline: BaselinePart
    launcher: LauncherPart
    device: DevicePart
    tracking: TrackingPart
    runs: PathText
    """Folder of stages, data and the tracking store."""
    seed: Whole
    """Random seed of initial weights and of the rows that growth adds."""
    extensions: tuple[str, ...] = ()
    """Modules that register classes of the user's own, such as growth operators and optimizers; they must be installed
    or on PYTHONPATH. Installed packages may announce theirs, as an entry point of the group `tfscale.extensions`."""
    seeds: Replicates = 1
    """Number of replicates of the whole plan: the first with seed and data.shuffle_seed as set, each further one with
    both increased by one. A comparison treats runs that differ only in these seeds as replicates."""
    init_from: PathText | None = None
    """Folder of an imported stage whose weights take the place of the first stage's training; it must be of that
    stage's shape. None: it is trained from scratch."""
    analysis: AnalysisPart = field(default_factory=AnalysisPart)
    reference: ReferencePart = field(default_factory=ReferencePart)
