"""Schema of a composed experiment. Each class is one part of the configuration, and the docstring of a field documents
the setting."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from tfscale.config.budget import BudgetText
from tfscale.config.machines import DevicePart, LauncherPart
from tfscale.config.schedule import SchedulePart
from tfscale.config.types import AnyGrowth, PathText, StoreUri
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
    NonNegative,
    Range,
    Rate,
    Share,
    Whole,
)

MOST_SEEDS = 1000
Replicates = Annotated[int, Range(1, MOST_SEEDS, such_as="3")]
"""A number of replicates from 1 to 1000."""
NoiseFloor = Annotated[float, Range(least=0, below=10, what="nats of loss", such_as="0.005")]
"""A difference of losses in nats, at least 0 and below 10."""


@dataclass(frozen=True)
class ModelPart:
    """Model settings that all stages of the chain share."""

    n_layer: Count
    """Number of layers."""
    d_model: Count
    """Width of the residual stream."""
    n_head: Count
    """Number of attention heads."""
    context: Count
    """Number of tokens per sequence in training and in evaluation."""
    vocab_size: Count | None = None
    """Number of rows of the embedding, at least the vocabulary size of the tokenizer. None: the vocabulary size of the
    tokenizer."""
    rotary: Fraction = 0.25
    """Fraction of the head dimensions with rotary position embeddings; 0: no position embeddings."""
    norm_activation: NormActivation = "l2_norm_gelu"
    """Normalisation and activation of the scores in Pattention (`tfscale.models.parameter_tokens`)."""
    init: Init = "official"
    """Initialisation of weights in every arm. `official`: as in the official TokenFormer configs. `scaled`: scaled with
    width and depth, for small models."""


@dataclass(frozen=True)
class DataPart:
    """Dataset, tokenizer and validation split."""

    source: str
    """Kind of source: wiki, docs, text, hub, shards, or a kind that an extension registers."""
    path: PathText | None = None
    """File or folder to read (source=text, shards). With source=hub, folder that is read instead of the Hub, if the
    folder exists."""
    text_key: str = "text"
    """Field of JSON lines, or column of Parquet files, that contains the text of a document."""
    dataset: str | None = None
    """Repository of the dataset on the Hugging Face Hub (source=hub)."""
    subset: str | None = None
    """Subset of the dataset (source=hub). None: the only subset, or the default one."""
    split: str = "train"
    """Split of the dataset from which both training and validation documents are taken (source=hub)."""
    revision: str = "main"
    """Branch, tag or commit of the dataset (source=hub). A branch or tag is resolved to a commit once, at the
    download."""
    tokenizer: Literal["bpe", "file", "hub"] = "bpe"
    """Kind of tokenizer. `bpe`: a byte-level BPE trained on the training documents. `file`: a tokenizer.json of Hugging
    Face. `hub`: a tokenizer from the Hugging Face Hub."""
    tokenizer_name: str | None = None
    """Repository of the tokenizer on the Hugging Face Hub, or gpt2, or gpt_neox_20b (tokenizer=hub)."""
    tokenizer_path: PathText | None = None
    """Path of a tokenizer.json (tokenizer=file). With tokenizer=hub, path of a tokenizer.json that replaces the Hub's
    tokenizer, if the file exists."""
    vocab_size: Count = 4096
    """Vocabulary size of the trained BPE (tokenizer=bpe). 257: one token per byte value, and the end-of-text token."""
    validation: Share = 0.05
    """Fraction of the documents used for validation, which are never trained on."""
    split_seed: Whole = 0
    """Random seed of the split into training and validation documents."""
    validation_tokens: Amount = 65_536
    """Number of validation tokens in every evaluation; the tokens are always the same."""
    validation_start: Amount = 0
    """Position, in the validation split, of the first token that evaluations read. `tfscale tune` reads the validation
    tokens that follow the tokens of these evaluations."""
    shuffle_seed: Whole = 0
    """Random seed of the order of the training text, which is the same in every arm."""
    workers: AutoCount = 0
    """Number of processes that prepare the corpus; auto: one per core. The prepared corpus does not depend on this
    number."""
    max_unknown: Fraction = 0.01
    """Maximum fraction of tokens for which the tokenizer has no entry. A corpus with a larger fraction is rejected. A
    corpus with a smaller fraction above 0 is used with a warning."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of a source that an extension registers, by name."""


@dataclass(frozen=True)
class OptimPart:
    """Optimizer and learning-rate schedule of every stage."""

    lr: Rate
    """Peak learning rate of every stage for which the schedule sets no other rate."""
    batch_tokens: Amount
    """Number of tokens per optimizer step, over all devices."""
    lr_schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    """Learning-rate schedule after the warm-up. `cosine`: cosine decay. `wsd`: constant, then decay. `constant`: no
    decay."""
    warmup: Fraction = 0.01
    """Fraction of the stage, at its start, over which the learning rate rises to its peak."""
    min_lr_ratio: Fraction = 0.1
    """Final learning rate as a fraction of the peak (lr_schedule=cosine, wsd)."""
    decay_fraction: Fraction = 0.2
    """Fraction of the stage, at its end, over which the learning rate decays (lr_schedule=wsd)."""
    beta1: Momentum = 0.9
    """Decay rate of the running mean of gradients."""
    beta2: Momentum = 0.95
    """Decay rate of the running mean of squared gradients."""
    eps: NonNegative = 1e-8
    """Term added to the denominator of an update for numerical stability."""
    weight_decay: NonNegative = 0.1
    """Coefficient of weight decay."""
    clip: NonNegative = 1.0
    """Maximum gradient norm, to which gradients are clipped; 0: no clipping."""
    name: str = "adamw"
    """Name of the optimizer. adamw: AdamW for all weights. muon: Muon for the matrices of the blocks, AdamW for all
    other weights. Extensions may register more optimizers."""
    parametrization: Literal["standard", "fan_in"] = "standard"
    """Learning rates and initial values of the matrices of the blocks. standard: one learning rate for all matrices.
    fan_in: scaled according to the fan-in of each matrix (docs/optimizers.md)."""
    embedding_ratio: Factor = 1.0
    """Learning rate of the embedding and of the gains and biases of norms, as a multiple of the matrices' learning
    rate."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings that only the chosen optimizer has, by name."""


@dataclass(frozen=True)
class ArmPart:
    """Settings of an arm that is compared with the chain. The arm trains models of the same sizes by another method."""

    kind: str
    """Kind of arm. `scratch`: models trained from scratch. `trained_on`: continued training of the chain's first model.
    `one_jump`: growth of the chain's first model to each size in one step. `chain`: another chain with other settings.
    Extensions may register more kinds."""
    title: str
    """Title of the arm in legends and tables."""
    family: str = "tokenformer"
    """Model family: tokenformer, transformer, or a family that an extension registers."""
    budget: Literal["cumulative_compute", "stage_tokens", "base_tokens"] = "cumulative_compute"
    """Training budget at each size. `cumulative_compute`: the model FLOPs of the chain up to that size, including its
    first stage. `stage_tokens`: the tokens of the chain's stage of that size. `base_tokens`: the tokens of the chain's
    first stage. `stage_tokens` and `base_tokens` are allowed only with kind=scratch."""
    sizes: Literal["all", "last"] = "all"
    """Sizes of the schedule at which the arm trains a model. `all`: every size, without the first size if the arm
    starts from the chain's first model. `last`: only the last size. An arm of kind `chain` always has all sizes."""
    lr: Rate | None = None
    """Peak learning rate of all models that the arm trains, except the first model of a chain. None: the schedule's
    rate for a model of this kind and size."""
    shape: Literal["schedule", "compute_optimal"] = "schedule"
    """Shape of Transformers trained from scratch. `schedule`: the schedule's shape for the size. `compute_optimal`: the
    compute-optimal size for the budget, at 20 tokens per parameter (`tfscale.plan.specs.compute_optimal`)."""
    growth: AnyGrowth | None = None
    """Growth operator (kind=one_jump, chain). None: the operator of the main chain."""
    growth_tokens: Factor = 1.0
    """Number of training tokens of each grown stage, as a multiple of the tokens of the main chain's stage of the same
    size (kind=chain, family=tokenformer)."""
    transformer_growth: TransformerGrowth | None = None
    """Growth operator of a chain of Transformers (kind=chain, family=transformer; `tfscale.growth.transformer_recipe`).
    The first model is the schedule's Transformer of the first size. Each later model has as nearly as possible the
    number of parameters of the main chain's model of the same size, and is trained up to the same cumulative
    compute."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of an arm whose kind an extension registers."""


@dataclass(frozen=True)
class BaselinePart:
    """Baseline arms that the chain is compared with."""

    arms: dict[str, ArmPart] = field(default_factory=dict)
    """Settings of the baseline arms, by name."""


@dataclass(frozen=True)
class TrackingPart:
    """Settings of the tracker, which mirrors the contents of the stages' folders."""

    enabled: bool = True
    """True to mirror runs to a tracker."""
    kind: str = "mlflow"
    """Kind of tracker: mlflow, wandb, or a kind that an extension registers."""
    uri: str | None = None
    """URI of the tracker, such as a tracking URI of MLflow. None: a SQLite store (mlflow) or a folder (wandb) in the
    runs folder, or the default of an extension's tracker."""


@dataclass(frozen=True)
class PrimaryPart:
    """Primary comparison, which is declared before the runs. All other comparisons are secondary."""

    size: str | None = None
    """Size at which the chain is compared. None: the last size of the schedule."""
    arm: str = "transformer_scratch"
    """Name of the arm with which the chain is compared."""


@dataclass(frozen=True)
class AnalysisPart:
    """Values that a comparison needs and that are not recorded when stages are trained."""

    noise_floor: NoiseFloor | None = None
    """Difference of final losses, in nats per token, below which two runs with one seed each count as equal. None:
    unknown, so every difference counts."""
    primary: PrimaryPart = field(default_factory=PrimaryPart)
    tuning_flops: NonNegative | None = None
    """FLOPs that were spent to tune the arms' learning rates, as `tfscale tune --write` records them. A comparison
    states these FLOPs, but does not include them in any cost. None: unknown."""


@dataclass(frozen=True)
class ReferencePart:
    """Published results that a comparison shows next to the measured results."""

    arms: list[dict[str, Any]] = field(default_factory=list)
    """Published arms in the format that `tfscale.analysis.reference` reads."""


@dataclass(frozen=True)
class Experiment:
    """All settings of an experiment."""

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
    """Runs folder, which contains the stages, the data and the tracking store."""
    seed: Whole
    """Random seed of initial weights and of rows that growth adds."""
    extensions: tuple[str, ...] = ()
    """Modules that register the user's own classes, such as growth operators and optimizers. The modules must be
    installed or on PYTHONPATH. Installed packages can announce modules as entry points of the group
    `tfscale.extensions`."""
    seeds: Replicates = 1
    """Number of replicates of the whole plan. The first replicate uses `seed` and `data.shuffle_seed` as set, and each
    further replicate increases both by one. A comparison treats runs that differ only in these seeds as replicates."""
    init_from: PathText | None = None
    """Folder of an imported stage whose weights are used instead of training the first stage. The imported model must
    have the shape of the first stage. None: the first stage is trained from scratch."""
    store: StoreUri | None = None
    """URI of a store that machines share, such as s3://BUCKET/FOLDER or a folder. Finished stages and corpora are
    downloaded from the store instead of being computed. Finished stages, checkpoints of running stages, and corpora are
    uploaded to it (docs/store.md). None: no store."""
    budget: BudgetText | None = None
    """Upper limit of one command that trains: model FLOPs without those of the optimizer, such as 1e15, or wall-clock
    time of training, such as 2h, 90m or 30s. The command stops with a checkpoint before it exceeds the limit and exits
    with code 3. None: no limit."""
    analysis: AnalysisPart = field(default_factory=AnalysisPart)
    reference: ReferencePart = field(default_factory=ReferencePart)
