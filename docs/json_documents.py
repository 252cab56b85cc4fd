"""Types of the JSON documents that `--json` prints. `docs/json_schemas.py` writes their JSON schemas.

Fields that a document takes from a class of the package have the types that they have there.
"""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict, get_type_hints

from tfscale.advise.advice import Option
from tfscale.advise.laws import MissingBudgets
from tfscale.advise.observed import Observed
from tfscale.advise.question import Budget
from tfscale.analysis.answer import Answer
from tfscale.analysis.curves import Measure
from tfscale.analysis.family import FamilyComparison, FamilyCost, Verdict
from tfscale.bench.rows import Note, Row
from tfscale.cli.doctor import Finding
from tfscale.cli.list_ import Choice
from tfscale.data.listing import LeftOut
from tfscale.data.manifest import SplitRecord, TokenizerRecord
from tfscale.growth.grow_checkpoint import OptimizerState
from tfscale.interop.perplexity import Score
from tfscale.models.counts import Memory
from tfscale.orchestrate.progress import Overview, Progress
from tfscale.plan.rehearsal import Rehearsed
from tfscale.plan.unreached import Difference
from tfscale.plan.why import Near
from tfscale.predict.cost import Prediction, Step
from tfscale.predict.families import Family
from tfscale.predict.machine import Machine
from tfscale.stage.layout import Layout
from tfscale.stage.status import State
from tfscale.store.contents import Waste
from tfscale.totals import Totals
from tfscale.tune.sweep import Sweep
from tfscale.verify.plan import Amount

Fields = dict[str, Any]
Number = float | None
"""A number, or null if it is unknown, infinite or not a number."""


def record(name: str, /, *parts: Fields, **more: Any) -> Any:
    """Return the type of a JSON object with the fields of `parts` and `more`. The last of several types for one field
    counts."""
    return TypedDict(name, {field: hint for part in (*parts, more) for field, hint in part.items()})


def of(source: type, names: str = "") -> Fields:
    """Return fields and properties of a class.

    Args:
        names: names of the fields and properties, separated by spaces; empty for all fields.
    """
    hints = get_type_hints(source)
    return {
        name: hints[name] if name in hints else get_type_hints(getattr(source, name).fget)["return"]
        for name in names.split() or hints
    }


def fields(names: str, type_: Any = Number) -> Fields:
    """Return fields of one type, given their names separated by spaces."""
    return dict.fromkeys(names.split(), type_)


# Stages and their evaluations
STAGE = {"role": str, "size": str, "seed": int, "key": str, "folder": str, "state": State}
LOSSES = fields("loss perplexity bits_per_byte")
FinalEvaluation = record(
    "FinalEvaluation", LOSSES, heldout_tokens=NotRequired[int | None], heldout_bytes=NotRequired[float | None]
)
EvaluationEvent = record(
    "EvaluationEvent",
    {"event": Literal["eval"], "time": float, "step": int, "tokens": int},
    LOSSES,
    heldout_tokens=NotRequired[int],
    heldout_bytes=NotRequired[float],
    **fields("total_tokens total_flops", int),
    **fields("total_seconds total_device_seconds", float),
    total_joules=NotRequired[float],
    total_optimizer_flops=NotRequired[int],
)

# run, status
StageProgress = record(
    "StageProgress",
    STAGE,
    {"detail": str},
    fields("tokens of_tokens flops of_flops", int),
    {"evaluation": EvaluationEvent | None},
    of(Progress, "tokens_per_second mfu memory"),
)
ArmProgress = record("ArmProgress", name=str, title=str, stages=list[StageProgress])
States = record("States", schedule=str, done=bool, overview=Overview, arms=list[ArmProgress])
Verified = record("Verified", sound=bool, findings=list[str], set_aside=list[str], read=Amount)
RehearsedStage = record("RehearsedStage", {"size": str}, of(Rehearsed), stage=str, evaluation=FinalEvaluation)
Rehearsal = record("Rehearsal", schedule=str, stages=list[RehearsedStage])

# plan
COSTS = of(Prediction, "seconds device_hours kilowatt_hours dollars")
PlannedMemory = record("PlannedMemory", of(Memory), total=int)
PlannedStage = record(
    "PlannedStage",
    STAGE,
    COSTS,
    {"model": dict[str, Any]},
    fields("parameters tokens steps", int),
    of(Prediction, "flops optimizer_flops optimizer_share"),
    of(Layout, "sharding recompute micro_batch"),
    {"accumulation": int, "memory": PlannedMemory, "fits": bool},
    step_seconds=Step | None,
    speed_measured=bool,
    **of(Prediction, "tokens_per_second mfu"),
)
PlannedArm = record("PlannedArm", name=str, title=str, kind=str, stages=list[PlannedStage])
PlannedFamily = record("PlannedFamily", COSTS, of(Family, "title budget flops"))
PlannedMachine = record("PlannedMachine", of(Machine), facts=dict[str, Any], hosts=int)
UnreachedStage = record("UnreachedStage", folder=str, planned=str, size=str, differences=list[Difference])
Planned = record(
    "Planned",
    schedule=str,
    machine=PlannedMachine,
    arms=list[PlannedArm],
    families=list[PlannedFamily],
    notes=list[str],
    unreached=list[UnreachedStage],
)
WhyStage = record("WhyStage", size=str, seed=int, key=str, state=State, nearest=list[Near])
Why = record("Why", why=list[WhyStage])

# compare
ComparedFamilyCost = record("ComparedFamilyCost", of(FamilyCost, "low high readings bound"), low=Number, high=Number)
EqualFamilies = record(
    "EqualFamilies",
    chain=ComparedFamilyCost,
    arm=ComparedFamilyCost,
    **fields("excess_low excess_high excess_interval_low excess_interval_high"),
    verdict=Verdict,
)
ComparedFamily = record(
    "ComparedFamily",
    of(FamilyComparison, "arm measure over"),
    at_perplexities_of_chain=EqualFamilies,
    at_perplexities_of_arm=EqualFamilies,
)
BranchReading = record("BranchReading", arm=str, size=str, seed=int, key=str, flops=Number, loss=Number)
ComparedGrowth = record(
    "ComparedGrowth",
    {"size": str, "seed": int, "key": str, "parent": str},
    fields("loss_before loss_after loss_end tokens_to_recover"),
)
FrontierPoint = record("FrontierPoint", fields("compute loss fit fit_low fit_high"))
FittedLaw = record(
    "FittedLaw",
    {"arm": str, "form": str},
    fields("irreducible coefficient exponent irreducible_low irreducible_high exponent_low exponent_high"),
    unit=float,
    keys=list[str],
    frontier=list[FrontierPoint],
)
PublishedPoint = record(
    "PublishedPoint", {"size": str}, fields("tokens flops perplexity device_hours"), read_from=str | None
)
PublishedArm = record("PublishedArm", arm=str, title=str, kind=str, points=list[PublishedPoint])
Primary = record("Primary", size=str, arm=str)
Compared = record(
    "Compared",
    title=str,
    measure=Measure,
    heldout_tokens=int | None,
    confidence=float,
    tuning_flops=Number,
    assumed_noise_floor=Number,
    primary=Primary | None,
    answer=Answer,
    caption=list[str],
    rows=list[dict[str, str | int | float | bool | None]],  # the rows of table.csv by column (docs/results.md)
    verdicts=list[str],
    families=list[ComparedFamily],
    family_verdicts=list[str],
    price=Number,
    basis=list[str],
    readings=list[BranchReading],
    growths=list[ComparedGrowth],
    scaling_laws=list[FittedLaw],
    published=list[PublishedArm],
    files=list[str],
)

# advise
Spread = record("Spread", fields("median low high"))
AdvisedOption = record(
    "AdvisedOption", of(Option, "title base base_tokens tokens flops"), beyond=Number, losses=list[Spread]
)
AdviceLaw = record(
    "AdviceLaw", name=str, variables=list[str], runs=int, irreducible=Number, coefficients=list[Number], noise=Number
)
PilotStage = record("PilotStage", key=str, label=str, tokens=int, flops=int)
PilotRuns = record("PilotRuns", stages=list[PilotStage], cost=float)
Advised = record(
    "Advised",
    targets=list[str],
    budget=Budget,
    enough_data=bool,
    laws=list[AdviceLaw],
    lacking=list[MissingBudgets],
    observed=list[Observed],
    unused=list[str],
    assumptions=list[str],
    decision=NotRequired[str],
    difference=NotRequired[Spread],
    saving=NotRequired[Spread],
    beyond=NotRequired[Number],
    warning=NotRequired[str | None],
    options=NotRequired[list[AdvisedOption]],
    pilot=NotRequired[PilotRuns],
    files=NotRequired[list[str]],
)

# tune
TunedText = record("TunedText", corpus=str, heldout_start=int, heldout_tokens=int)
TrialStage = record("TrialStage", key=str, seed=int, loss=Number)
TunedTrial = record("TunedTrial", value=float, of_tokens=float, loss=Number, stages=list[TrialStage])
TunedPlace = record("TunedPlace", arm=str, size=str)
TunedRate = record(
    "TunedRate",
    key=str,
    again=bool,
    before=float,
    trains=list[TunedPlace],
    trials=list[TunedTrial],
    chosen=float | None,
    place=str,
)
TuningCost = record("TuningCost", of(Totals), of_the_plan=float, of_a_full_grid=float)
Tuned = record(
    "Tuned",
    {"schedule": str, "key": str, "overrides": list[str], "arms": list[str]},
    of(Sweep),
    first_seed=int,
    text=TunedText,
    rates=list[TunedRate],
    chosen=list[str],
    cost=TuningCost,
)

# sync, bench
SyncedExperiment = record(
    "SyncedExperiment",
    {"experiment": str, "arms": list[str]},
    fields("stages done not_begun values_sent", int),
    fault=str | None,
)
BenchRow = record(
    "BenchRow",
    of(Row),
    figures=dict[str, Number],
    median=NotRequired[float],
    quartiles=NotRequired[tuple[float, float]],
)

# data
CorpusSplit = record("CorpusSplit", of(SplitRecord, "tokens documents"))
CorpusTokenizer = record("CorpusTokenizer", of(TokenizerRecord, "kind vocab_size"))
CORPUS = {
    "fingerprint": str,
    "folder": str,
    "source": dict[str, str],
    "tokenizer": CorpusTokenizer,
    "training": CorpusSplit,
    "heldout": CorpusSplit,
    "duplicates": int,
    "empty": int,
    "unknown_tokens": int | None,
}
ReadFile = record("ReadFile", name=str, bytes=int)
CorpusFiles = record("CorpusFiles", read=list[ReadFile], left_out=list[LeftOut])
ListedCorpus = record("ListedCorpus", CORPUS, bytes=int)
DamagedCorpus = record("DamagedCorpus", folder=str, damaged=str)

# grow, generate, eval
GrownStage = record(
    "GrownStage",
    {"stage": str, "parameters_before": int, "parameters": int, "recipe": str},
    fields("loss_before loss_after max_logit_difference tolerance"),
    {"precision": str, "tokens": int},
    optimizer=OptimizerState,
    folder=str,
)
Continuation = record(
    "Continuation", stage=str, parameters=int, evaluation=FinalEvaluation | None, prompt=str, text=str
)
TextEvaluation = record(
    "TextEvaluation",
    {"stage": str, "kind": Literal["text"], "name": str, "sha256": str},
    LOSSES,
    of(Score, "tokens bytes context stride"),
    unknown_tokens=NotRequired[int],
)
TaskEvaluation = record(
    "TaskEvaluation",
    {"stage": str, "kind": Literal["task"], "name": str, "version": Any, "harness": str},
    fields("samples shots", int),
    metrics=dict[str, Number],
)

# store
StoredItem = record("StoredItem", kind=Literal["stage", "corpus"], name=str, state=str, bytes=int)
StoreTransfer = record("StoreTransfer", store=str, items=dict[str, str], faults=list[str])
SnapshotsRead = record("SnapshotsRead", snapshots=int, bytes=int)

DOCUMENTS: dict[str, Any] = {
    "run": States | Rehearsal,
    "plan": Planned | Why,
    "compare": Compared,
    "verify": record("VerifiedResults", sound=bool, findings=list[str]),
    "report": record("Report", report=str),
    "advise": Advised,
    "tune": Tuned,
    "status": States | Verified,
    "sync": record("Synced", store=str, experiments=list[SyncedExperiment]),
    "list": list[Choice],
    "doctor": record("Diagnosis", usable=bool, findings=list[Finding]),
    "bench": record("Benchmarked", machine=dict[str, Any], rows=list[BenchRow], notes=list[Note]),
    "grow": GrownStage,
    "generate": list[Continuation],
    "import": record("Imported", source=str, parameters=int, weights=str | None, totals=Totals | None, folder=str),
    "export": record("Exported", stage=str, to=Literal["hf"], folder=str),
    "eval": list[TextEvaluation | TaskEvaluation],
    "data prepare": record("Prepared", CORPUS, files=CorpusFiles),
    "data list": record("Corpora", folder=str, corpora=list[ListedCorpus | DamagedCorpus], unfinished=list[str]),
    "store ls": record("StoreContents", store=str, items=list[StoredItem]),
    "store push": StoreTransfer,
    "store pull": StoreTransfer,
    "store verify": record("VerifiedStore", store=str, sound=bool, problems=list[str], read=SnapshotsRead),
    "store gc": record("CleanedStore", store=str, removed=bool, files=list[Waste], bytes=int),
}
"""Type of the document of each command; of two types, the second is that of another mode of the command."""
