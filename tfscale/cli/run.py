"""tfscale run: the chain, and the arms of `baseline=`."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tfscale.cli.data import PreparationView
from tfscale.cli.experiment import console, plan_of, say
from tfscale.cli.summary import chain_table
from tfscale.cli.view import make_view
from tfscale.faults import UserFault
from tfscale.schedule.arms import ArmStage
from tfscale.schedule.corpus import prepare_corpus
from tfscale.schedule.launchers import missing
from tfscale.schedule.ledger import is_done
from tfscale.schedule.orchestrator import Orchestrator, StageFailed
from tfscale.schedule.plan import Plan
from tfscale.schedule.predict import planned_machine, preflight, remarks
from tfscale.tracking.mirror import Mirror
from tfscale.tracking.store import Store, StoreError, store_at
from tfscale.tracking.sync import sync
from tfscale.training.preemption import PREEMPTED

MIRROR_SECONDS = 60.0
"""How long the end of a run waits for a slow tracking store."""


def run(overrides: Sequence[str], config_dir: Path | None) -> int:
    """Runs a plan; returns the exit code."""
    plan = plan_of(overrides, config_dir)
    if plan.experiment.schedule.rehearse:
        from tfscale.cli.rehearse import rehearse

        return rehearse(plan)
    code = run_plan(plan)
    if code == 0:
        try:
            console.print(chain_table(plan))
        except ValueError as error:
            raise UserFault([str(error)]) from error
    return code


def run_plan(plan: Plan) -> int:
    """Trains what is not finished; returns the exit code.

    Raises:
        UserFault: something is missing; nothing has been written.
    """
    store = tracking_store(plan)
    check(plan)
    left = [stage for stage in plan.stages if not is_done(stage)]
    if not left:
        _catch_up(plan, store)
        say(f"{plan.experiment.schedule.name}: all {len(plan.stages)} stages are done; nothing to train.")
        return 0
    if len(left) < len(plan.stages):
        say(f"{len(plan.stages) - len(left)} of {len(plan.stages)} stages are done already.")
    prepare(plan)
    return train(plan, plan.stages, store)


def check(plan: Plan) -> None:
    """Makes sure that a plan can be run here.

    Raises:
        UserFault: something is missing; nothing has been written.
    """
    faults = [*preflight(plan), *missing(plan.experiment.launcher)]
    if faults:
        raise UserFault(faults)
    if plan.experiment.launcher.kind == "slurm":
        for note in remarks(plan, planned_machine(plan.experiment)):
            say(f"note: {note}")


def tracking_store(plan: Plan) -> Store | None:
    """The store of the plan's tracking; None where tracking is off.

    Raises:
        UserFault: a URI that is none.
    """
    tracking = plan.experiment.tracking
    if not tracking.enabled:
        return None
    try:
        return store_at(plan.runs, tracking.uri)
    except ValueError as error:
        raise UserFault([str(error)]) from error


def prepare(plan: Plan) -> None:
    """Makes the corpus, or finds it."""
    with PreparationView() as view:
        prepare_corpus(plan.experiment, plan.corpus, view)


def train(plan: Plan, stages: Sequence[ArmStage], store: Store | None) -> int:
    """Brings stages of a plan to their end, in view of the user; returns the exit code."""
    mirror = Mirror(store, plan.experiment.schedule.name, plan.arms) if store else None
    with make_view(plan, console) as view:
        orchestrator = Orchestrator(stages, plan.experiment.launcher, view)

        def stop(number: int, frame: FrameType | None) -> None:
            view.say(orchestrator.stop())

        previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        if mirror:
            mirror.start()
        try:
            finished = orchestrator.run()
        except StageFailed as failure:
            view.say(str(failure))
            return 1
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            _stop(mirror)
    if not finished:
        say("stopped; the same command goes on.")
        return PREEMPTED
    return 0


def _stop(mirror: Mirror | None) -> None:
    fault = mirror.stop(MIRROR_SECONDS) if mirror else None
    if fault:
        _warn(fault)


def _catch_up(plan: Plan, store: Store | None) -> None:
    if store is None:
        return
    try:
        sync(store, plan.experiment.schedule.name, plan.arms)
    except StoreError as fault:
        _warn(str(fault))


def _warn(fault: str) -> None:
    print(f"warning: tracking is behind, and is caught up by the next run: {fault}", file=sys.stderr)
