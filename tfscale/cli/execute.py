"""Functions that several commands share. They check a plan, prepare its corpus, train its stages, and send measurements
to a tracker."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType

from tfscale.cli.console import console, say
from tfscale.cli.data import PreparationView
from tfscale.cli.store import finish_upload, pull_plan, start_pusher, store_of, take_corpus
from tfscale.cli.view import make_view
from tfscale.cli.why import unreached_line
from tfscale.config.budget import Budget, read_budget
from tfscale.config.compose import runs_dir
from tfscale.config.schema import Experiment
from tfscale.faults import BUDGET_SPENT, PREEMPTED, UserFault, user_faults
from tfscale.orchestrate.allowance import Allowance, reached_step, step_flops
from tfscale.orchestrate.launchers import left_over, missing
from tfscale.orchestrate.orchestrator import Orchestrator, StageFailed
from tfscale.orchestrate.progress import Watch, overview
from tfscale.orchestrate.speed import finished_speeds
from tfscale.plan.corpus import left_out_notes, listing_of, prepare_corpus, unknown_notes
from tfscale.plan.experiments import Recorded, experiment_of, record
from tfscale.plan.plan import Plan, make_plan
from tfscale.plan.unreached import unreached_stages
from tfscale.predict import planned_machine, preflight, remarks
from tfscale.stage.folder import Stage, is_done
from tfscale.store.lease import Leases
from tfscale.store.remote import Store
from tfscale.text import count, duration, scientific
from tfscale.tracking.mirror import Mirror
from tfscale.tracking.sync import Session
from tfscale.tracking.tracker import TRACKERS, Tracker, TrackingError

MIRROR_SECONDS = 60.0
"""Maximum time in seconds that a command waits for the tracker after training."""
MOST_LISTED = 8
"""Maximum number of unfinished stages that are listed when the budget is spent."""


def allowance_of(experiment: Experiment) -> Allowance:
    """Return a new allowance with the experiment's `budget`, or without a limit if `budget` is None."""
    return Allowance(read_budget(experiment.budget) if experiment.budget else Budget())


def run_plan(plan: Plan, allowance: Allowance | None = None) -> tuple[int, Plan]:
    """Train the unfinished stages of a plan within `allowance`, which is by default the budget of the experiment.
    Before training, stages and the corpus are downloaded if the store has them. Return the exit code and the
    updated plan, which reflects stages that ended early and growths that were rejected."""
    tracker, store = tracker_of(plan.experiment), store_of(plan.experiment)
    check(plan)
    plan = pull_plan(plan, store)
    left = [stage for stage in plan.stages if not is_done(stage)]
    if not left:
        record(plan)
        catch_up(experiment_of(plan), tracker)
        say(f"{plan.experiment.schedule.name}: all {len(plan.stages)} stages are done; nothing to train.")
        return 1 if store and finish_upload(start_pusher(plan, store, say)) else 0, plan
    if len(left) < len(plan.stages):
        say(f"{len(plan.stages) - len(left)} of {len(plan.stages)} stages are already done.")
    if unreached := unreached_stages(plan):
        say(f"note: {unreached_line(unreached)}")
    prepare(plan, store)
    allowance = allowance or allowance_of(plan.experiment)
    while True:
        known, stages = plan.known, plan.decided
        record(known)
        code = train(known, stages, tracker, store, allowance)
        if code == BUDGET_SPENT:
            say(*_spent_words(plan, allowance))
        if code or known is plan:
            return code, plan
        plan = pull_plan(make_plan(plan.experiment), store)  # the chain's cost sets the budgets of the baselines


def _spent_words(plan: Plan, allowance: Allowance) -> list[str]:
    """Return the lines of the message that the budget is spent, with the stages and tokens that are left."""
    left = [(stage, *_work_left(stage)) for stage in plan.stages if not is_done(stage)]
    lines = [
        f"  {stage.path.name}: {count(tokens)} of {count(stage.spec.tokens)} tokens, {scientific(flops)} FLOPs"
        for stage, tokens, flops in left[:MOST_LISTED]
    ]
    if len(left) > MOST_LISTED:
        lines.append(f"  and {len(left) - MOST_LISTED} more; `tfscale plan` lists all")
    time = overview(plan, Watch(plan.stages).look(), finished_speeds(plan.runs)).left
    about = f", about {duration(time)}" if time is not None else ""
    return [
        f"budget={plan.experiment.budget}: the remaining work does not fit; {scientific(allowance.trained)} FLOPs were "
        f"used. {len(left)} of {len(plan.stages)} stages are left, "
        f"{scientific(sum(flops for _, _, flops in left))} FLOPs{about}:",
        *lines,
        "Run the same command again to continue." if allowance.trained else "Continue with a larger budget.",
    ]


def _work_left(stage: Stage) -> tuple[int, int]:
    """Return the number of tokens on which a stage has not been trained yet, and the model FLOPs of training on
    them."""
    steps = max(0, stage.spec.steps - reached_step(stage.path))
    return steps * stage.spec.batch_tokens, steps * step_flops(stage)


def check(plan: Plan) -> None:
    """Raise UserFault if a plan cannot be run on this machine. Otherwise, print notes about the run."""
    faults = [*preflight(plan), *missing(plan.experiment.launcher)]
    if faults:
        raise UserFault(faults)
    if note := left_over():
        say(f"note: {note}")
    if plan.experiment.launcher.kind == "slurm":
        say(*remarks(planned_machine(plan.experiment)), prefix="note: ")


def tracker_of(experiment: Experiment) -> Tracker | None:
    """Return the tracker of an experiment, or None if tracking is off. Raise UserFault if the tracker's settings are
    invalid."""
    tracking = experiment.tracking
    if not tracking.enabled:
        return None
    with user_faults():
        return TRACKERS.get(tracking.kind)(runs_dir(experiment), tracking.uri)


def prepare(plan: Plan, store: Store | None = None) -> None:
    """Download the corpus of a plan from the store or, if the store does not have it, prepare it. A corpus that is
    already on this machine is used as it is. Print warnings about skipped files and unknown tokens."""
    if store is not None:
        take_corpus(plan, store)
    with PreparationView() as view:
        data = prepare_corpus(plan.experiment, plan.corpus, view)
    notes = [] if plan.corpus.prepared else left_out_notes(listing_of(plan.experiment, plan.corpus))
    say(*notes, *unknown_notes(data.manifest), prefix="warning: ")


def train(
    plan: Plan,
    stages: Sequence[Stage],
    tracker: Tracker | None,
    store: Store | None = None,
    allowance: Allowance | None = None,
) -> int:
    """Train the given stages of a plan, show the progress, and return the exit code. Training stops early if the
    allowance is spent, or after SIGINT (Ctrl-C) or SIGTERM. If there is a store, finished stages, new checkpoints and
    the corpus are uploaded to it in the background."""
    mirror = Mirror(tracker, plan.experiment.schedule.name, plan.arms) if tracker else None
    with make_view(plan, console) as view:
        leases = Leases(store, plan.runs) if store else None
        orchestrator = Orchestrator(stages, plan.experiment.launcher, view, allowance, leases)

        def stop(number: int, frame: FrameType | None) -> None:
            view.say(orchestrator.stop())

        previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        if mirror:
            mirror.start()
        pusher = start_pusher(plan, store, view.say) if store else None
        try:
            finished = orchestrator.run()
        except StageFailed as failure:
            view.say(str(failure))
            return 1
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            if mirror and (fault := mirror.stop(MIRROR_SECONDS)):
                _warn(fault)
            behind = pusher is not None and finish_upload(pusher)
            if leases:
                leases.close()
    if orchestrator.spent:
        return BUDGET_SPENT
    if not finished:
        say("stopped; run the same command again to continue.")
        return PREEMPTED
    return 1 if behind else 0


def catch_up(experiment: Recorded, tracker: Tracker | None) -> None:
    """Send new measurements and the comparison of an experiment to a tracker, or print a warning if that fails. If
    `tracker` is None, nothing is sent."""
    if tracker is None:
        return
    try:
        Session(tracker, experiment.name).sync(experiment.arms, experiment.comparison)
    except TrackingError as fault:
        _warn(str(fault))


def _warn(fault: str) -> None:
    print(
        f"warning: tracking is not up to date: {fault}\n"
        "Fix this and run the same command again to send the missing measurements.",
        file=sys.stderr,
    )
