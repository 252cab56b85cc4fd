"""Types of the JSON documents that `--json` prints, and the JSON schemas that are made from them.

`python docs/json_documents.py` writes the schemas to docs/reference/schemas. The tests compare them with the types, and
the types with what the commands print.
"""

import json
from pathlib import Path
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict

from tfscale.advise.laws import MissingBudgets
from tfscale.advise.observed import Observed
from tfscale.advise.question import Budget
from tfscale.analysis.answer import Answer
from tfscale.analysis.curves import Measure
from tfscale.analysis.family import Bound, Verdict
from tfscale.bench.rows import Note
from tfscale.cli.doctor import Finding
from tfscale.cli.list_ import Choice
from tfscale.growth.optimizer_state import OptimizerState
from tfscale.orchestrate.progress import Overview
from tfscale.plan.unreached import Difference
from tfscale.predict.cost import Step
from tfscale.stage.status import State
from tfscale.store.upkeep import Waste
from tfscale.totals import Totals
from tfscale.verify.plan import Amount

SCHEMAS = Path(__file__).parent / "reference" / "schemas"
Number = float | None
"""A number, or null if it is unknown, infinite or not a number."""


class EvaluationEvent(TypedDict):
    event: Literal["eval"]
    time: float
    step: int
    tokens: int
    loss: Number
    perplexity: Number
    bits_per_byte: Number
    heldout_tokens: NotRequired[int]
    heldout_bytes: NotRequired[float]
    total_tokens: int
    total_flops: int
    total_seconds: float
    total_device_seconds: float
    total_joules: NotRequired[float]
    total_optimizer_flops: NotRequired[int]


class StageOfPlan(TypedDict):
    role: str
    size: str
    seed: int
    key: str
    folder: str
    state: State


class StageProgress(StageOfPlan):
    detail: str
    tokens: int
    of_tokens: int
    flops: int
    of_flops: int
    evaluation: EvaluationEvent | None
    tokens_per_second: Number
    mfu: Number
    memory: int | None


class ArmProgress(TypedDict):
    name: str
    title: str
    stages: list[StageProgress]


class States(TypedDict):
    schedule: str
    done: bool
    overview: Overview
    arms: list[ArmProgress]


class Verified(TypedDict):
    sound: bool
    findings: list[str]
    set_aside: list[str]
    read: Amount


class FinalEvaluation(TypedDict):
    loss: Number
    perplexity: Number
    bits_per_byte: Number
    heldout_tokens: NotRequired[int | None]
    heldout_bytes: NotRequired[float | None]


class RehearsedStage(TypedDict):
    size: str
    stage: str
    device: str
    processes: int
    micro_batch: int
    seconds_a_step: float
    tokens_per_second: float
    peak_memory: int
    checkpoint_bytes: int
    checkpoint_seconds: float
    evaluation: FinalEvaluation
    growth: dict[str, Any] | None


class Rehearsal(TypedDict):
    schedule: str
    stages: list[RehearsedStage]


class PlannedMemory(TypedDict):
    weights: int
    gradients: int
    moments: int
    activations: int
    logits: int
    temporary: int
    gathered: int
    total: int


class PlannedCosts(TypedDict):
    seconds: Number
    device_hours: Number
    kilowatt_hours: Number
    dollars: Number


class PlannedStage(StageOfPlan, PlannedCosts):
    model: dict[str, Any]
    parameters: int
    tokens: int
    steps: int
    flops: int
    optimizer_flops: int
    optimizer_share: float
    sharding: Literal["none", "full", "hybrid"]
    recompute: str
    micro_batch: int
    accumulation: int
    memory: PlannedMemory
    fits: bool
    step_seconds: Step | None
    speed_measured: bool
    tokens_per_second: Number
    mfu: Number


class PlannedArm(TypedDict):
    name: str
    title: str
    kind: str
    stages: list[PlannedStage]


class PlannedFamily(PlannedCosts):
    title: str
    budget: Literal["chain", "base_tokens", "cumulative_compute", "plan", "left"]
    flops: int


class PlannedMachine(TypedDict):
    device: Literal["cpu", "cuda"]
    memory: int | None
    precision: Literal["fp32", "tf32", "bf16"]
    devices: int
    per_host: int
    name: str
    peak: Number
    most: int
    cluster: bool
    measured: bool
    facts: dict[str, Any]
    names: list[str]
    hosts: int


class UnreachedStage(TypedDict):
    folder: str
    planned: str
    size: str
    differences: list[Difference]


class Planned(TypedDict):
    schedule: str
    machine: PlannedMachine
    arms: list[PlannedArm]
    families: list[PlannedFamily]
    notes: list[str]
    unreached: list[UnreachedStage]


class NearStage(TypedDict):
    folder: str
    differences: list[Difference]
    inherited: list[Difference]
    overrides: list[str]


class WhyStage(TypedDict):
    size: str
    seed: int
    key: str
    state: State
    nearest: list[NearStage]


class Why(TypedDict):
    why: list[WhyStage]


class FamilyReading(TypedDict):
    size: str
    cumulative: Number
    bound: Bound


class ComparedFamilyCost(TypedDict):
    low: Number
    high: Number
    readings: list[FamilyReading]
    bound: Bound


class EqualFamilies(TypedDict):
    chain: ComparedFamilyCost
    arm: ComparedFamilyCost
    excess_low: Number
    excess_high: Number
    excess_interval_low: Number
    excess_interval_high: Number
    verdict: Verdict


class ComparedFamily(TypedDict):
    arm: str
    measure: Measure
    over: list[Literal["seeds", "documents"]]
    at_perplexities_of_chain: EqualFamilies
    at_perplexities_of_arm: EqualFamilies


class BranchReading(TypedDict):
    arm: str
    size: str
    seed: int
    key: str
    flops: Number
    loss: Number


class ComparedGrowth(TypedDict):
    size: str
    seed: int
    key: str
    parent: str
    loss_before: Number
    loss_after: Number
    loss_end: Number
    tokens_to_recover: Number


class FrontierPoint(TypedDict):
    compute: Number
    loss: Number
    fit: Number
    fit_low: Number
    fit_high: Number


class FittedLaw(TypedDict):
    arm: str
    form: str
    irreducible: Number
    coefficient: Number
    exponent: Number
    irreducible_low: Number
    irreducible_high: Number
    exponent_low: Number
    exponent_high: Number
    unit: float
    keys: list[str]
    frontier: list[FrontierPoint]


class PublishedPoint(TypedDict):
    size: str
    tokens: Number
    flops: Number
    perplexity: Number
    device_hours: Number
    read_from: str | None


class PublishedArm(TypedDict):
    arm: str
    title: str
    kind: str
    points: list[PublishedPoint]


class Primary(TypedDict):
    size: str
    arm: str


class Compared(TypedDict):
    title: str
    measure: Measure
    heldout_tokens: int | None
    confidence: float
    tuning_flops: Number
    assumed_noise_floor: Number
    primary: Primary | None
    answer: Answer
    caption: list[str]
    rows: list[dict[str, str | int | float | bool | None]]
    """Rows of table.csv by column (docs/results.md)."""
    verdicts: list[str]
    families: list[ComparedFamily]
    family_verdicts: list[str]
    price: Number
    basis: list[str]
    readings: list[BranchReading]
    growths: list[ComparedGrowth]
    scaling_laws: list[FittedLaw]
    published: list[PublishedArm]
    files: list[str]


class Report(TypedDict):
    report: str


class VerifiedResults(TypedDict):
    sound: bool
    findings: list[str]


class Spread(TypedDict):
    median: Number
    low: Number
    high: Number


class AdvisedOption(TypedDict):
    title: str
    base: str | None
    base_tokens: float
    tokens: list[float]
    flops: float
    beyond: Number
    losses: list[Spread]


class AdviceLaw(TypedDict):
    name: str
    variables: list[str]
    runs: int
    irreducible: Number
    coefficients: list[Number]
    noise: Number


class PilotStage(TypedDict):
    key: str
    label: str
    tokens: int
    flops: int


class PilotRuns(TypedDict):
    stages: list[PilotStage]
    cost: float


class Advised(TypedDict):
    targets: list[str]
    budget: Budget
    enough_data: bool
    laws: list[AdviceLaw]
    lacking: list[MissingBudgets]
    observed: list[Observed]
    unused: list[str]
    assumptions: list[str]
    decision: NotRequired[str]
    difference: NotRequired[Spread]
    saving: NotRequired[Spread]
    beyond: NotRequired[Number]
    warning: NotRequired[str | None]
    options: NotRequired[list[AdvisedOption]]
    pilot: NotRequired[PilotRuns]
    files: NotRequired[list[str]]


class TunedText(TypedDict):
    corpus: str
    heldout_start: int
    heldout_tokens: int


class TrialStage(TypedDict):
    key: str
    seed: int
    loss: Number


class TunedTrial(TypedDict):
    value: float
    of_tokens: float
    loss: Number
    stages: list[TrialStage]


class TunedPlace(TypedDict):
    arm: str
    size: str


class TunedRate(TypedDict):
    key: str
    again: bool
    before: float
    trains: list[TunedPlace]
    trials: list[TunedTrial]
    chosen: float | None
    place: str


class TuningCost(TypedDict):
    tokens: int
    flops: int
    seconds: float
    device_seconds: float
    joules: float | None
    optimizer_flops: int | None
    of_the_plan: float
    of_a_full_grid: float


class Tuned(TypedDict):
    schedule: str
    key: str
    overrides: list[str]
    arms: list[str]
    factors: list[float]
    further: int
    seeds: int
    rungs: int
    reduction: int
    refine: bool
    ratios: list[float]
    first_seed: int
    text: TunedText
    rates: list[TunedRate]
    chosen: list[str]
    cost: TuningCost


class SyncedExperiment(TypedDict):
    experiment: str
    arms: list[str]
    stages: int
    done: int
    not_begun: int
    values_sent: int
    fault: str | None


class Synced(TypedDict):
    store: str
    experiments: list[SyncedExperiment]


class Diagnosis(TypedDict):
    usable: bool
    findings: list[Finding]


class BenchRow(TypedDict):
    part: str
    case: str
    name: str
    seconds: list[float]
    figures: dict[str, Number]
    median: NotRequired[float]
    quartiles: NotRequired[tuple[float, float]]


class Benchmarked(TypedDict):
    machine: dict[str, Any]
    rows: list[BenchRow]
    notes: list[Note]


class CorpusSplit(TypedDict):
    tokens: int
    documents: int


class CorpusTokenizer(TypedDict):
    kind: str
    vocab_size: int


class Corpus(TypedDict):
    fingerprint: str
    folder: str
    source: dict[str, str]
    tokenizer: CorpusTokenizer
    training: CorpusSplit
    heldout: CorpusSplit
    duplicates: int
    empty: int
    unknown_tokens: int | None


class ReadFile(TypedDict):
    name: str
    bytes: int


class LeftOutFile(TypedDict):
    name: str
    reason: str
    bytes: int | None


class CorpusFiles(TypedDict):
    read: list[ReadFile]
    left_out: list[LeftOutFile]


class Prepared(Corpus):
    files: CorpusFiles


class ListedCorpus(Corpus):
    bytes: int


class DamagedCorpus(TypedDict):
    folder: str
    damaged: str


class Corpora(TypedDict):
    folder: str
    corpora: list[ListedCorpus | DamagedCorpus]
    unfinished: list[str]


class StoredItem(TypedDict):
    kind: Literal["stage", "corpus"]
    name: str
    state: str
    bytes: int


class StoreContents(TypedDict):
    store: str
    items: list[StoredItem]


class StoreTransfer(TypedDict):
    store: str
    items: dict[str, str]
    faults: list[str]


class SnapshotsRead(TypedDict):
    snapshots: int
    bytes: int


class VerifiedStore(TypedDict):
    store: str
    sound: bool
    problems: list[str]
    read: SnapshotsRead


class CleanedStore(TypedDict):
    store: str
    removed: bool
    files: list[Waste]
    bytes: int


class GrownStage(TypedDict):
    stage: str
    parameters_before: int
    parameters: int
    recipe: str
    loss_before: Number
    loss_after: Number
    max_logit_difference: Number
    tolerance: Number
    precision: str
    tokens: int
    optimizer: OptimizerState
    folder: str


class Continuation(TypedDict):
    stage: str
    parameters: int
    evaluation: FinalEvaluation | None
    prompt: str
    text: str


class TextEvaluation(TypedDict):
    stage: str
    kind: Literal["text"]
    name: str
    sha256: str
    perplexity: Number
    bits_per_byte: Number
    loss: Number
    tokens: int
    bytes: float
    context: int
    stride: int
    unknown_tokens: NotRequired[int]


class TaskEvaluation(TypedDict):
    stage: str
    kind: Literal["task"]
    name: str
    version: Any
    harness: str
    samples: int
    shots: int
    metrics: dict[str, Number]


class Imported(TypedDict):
    source: str
    parameters: int
    weights: str | None
    totals: Totals | None
    folder: str


class Exported(TypedDict):
    stage: str
    to: Literal["hf"]
    folder: str


DOCUMENTS: dict[str, Any] = {
    "run": States | Rehearsal,
    "plan": Planned | Why,
    "compare": Compared,
    "verify": VerifiedResults,
    "report": Report,
    "advise": Advised,
    "tune": Tuned,
    "status": States | Verified,
    "sync": Synced,
    "list": list[Choice],
    "doctor": Diagnosis,
    "bench": Benchmarked,
    "grow": GrownStage,
    "generate": list[Continuation],
    "import": Imported,
    "export": Exported,
    "eval": list[TextEvaluation | TaskEvaluation],
    "data prepare": Prepared,
    "data list": Corpora,
    "store ls": StoreContents,
    "store push": StoreTransfer,
    "store pull": StoreTransfer,
    "store verify": VerifiedStore,
    "store gc": CleanedStore,
}
"""Type of the document of each command; of two types, the second is that of another mode of the command."""


class _AsPrinted(GenerateJsonSchema):
    """Schemas of documents in which every field of a dataclass is printed, and in which names are no titles."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        return field["type"] == "dataclass-field" or super().field_is_required(field, total)

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def file_of(command: str) -> Path:
    """Return the file of a command's schema."""
    return SCHEMAS / f"{command.replace(' ', '_')}.json"


def schema_of(command: str) -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a command's document."""
    made = TypeAdapter(DOCUMENTS[command]).json_schema(mode="serialization", schema_generator=_AsPrinted)
    schema = _without_additions(made)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"tfscale {command} --json", **schema}


def _without_additions(value: Any) -> Any:
    """Return a part of a schema without what some versions of pydantic add and others do not."""
    if isinstance(value, list):
        return [_without_additions(each) for each in value]
    if not isinstance(value, dict):
        return value
    added = {"description": isinstance(value.get("description"), str), "enum": "const" in value}
    added["additionalProperties"] = value.get("additionalProperties") is True
    return {key: _without_additions(part) for key, part in value.items() if not added.get(key)}


def main() -> None:
    SCHEMAS.mkdir(exist_ok=True)
    for command in DOCUMENTS:
        file_of(command).write_text(json.dumps(schema_of(command), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
