"""Steps of commands that train: downloading stages and the corpus from a stage store, and uploading them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tfscale.cli.console import say
from tfscale.cli.streams import tell_error
from tfscale.config.schema import Experiment
from tfscale.faults import Fault, UserFault, user_faults
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.folder import Stage
from tfscale.stage.lock import StageHeld
from tfscale.store.contents import DONE
from tfscale.store.pusher import Pusher
from tfscale.store.remote import Damaged, Store, StoreError
from tfscale.store.stages import pull_corpus, pull_stage


def store_of(experiment: Experiment) -> Store | None:
    """Return the stage store of an experiment, or None if there is none."""
    with user_faults():
        return Store(experiment.store) if experiment.store else None


def pull_plan(plan: Plan, store: Store | None) -> Plan:
    """Download those stages of a plan that are in the store, and return the plan. If the plan of other stages depends
    on the results of a downloaded stage, the plan is made again."""
    if store is None or not take_stages(plan.decided, store) or plan.known is plan:
        return plan
    return pull_plan(make_plan(plan.experiment), store)


def take_stages(stages: Sequence[Stage], store: Store) -> bool:
    """Download those stages that are in the store. Return True if at least one finished stage was downloaded."""
    return DONE in [
        _take(store, stage.path.name, partial(pull_stage, store, stage.path, stage.spec)) for stage in stages
    ]


def take_corpus(plan: Plan, store: Store) -> None:
    """Download the corpus of a plan if it is in the store and not on this machine."""
    folder = _corpus_folder(plan)
    if folder is not None:
        _take(store, f"corpus {folder.name}", lambda: DONE if pull_corpus(store, folder) else None)


def _take(store: Store, name: str, download: Callable[[], str | None]) -> str | None:
    """Download a stage or corpus, and return the name of the downloaded snapshot, or None if nothing was downloaded. If
    the files in the store are damaged or the stage is in use, print a warning and return None."""
    try:
        state = download()
    except (Damaged, StageHeld) as fault:
        say(f"warning: {name} is not taken from the store: {fault}")
        return None
    except StoreError as fault:
        raise UserFault([Fault("store", store.shown, f"must be readable ({fault})", "again, or omit store")]) from fault
    if state is not None:
        say(f"{name}: taken from the store{'' if state == DONE else f', at {state}'}")
    return state


def _corpus_folder(plan: Plan) -> Path | None:
    """Return the folder of a plan's corpus in the runs folder, or None if the corpus is elsewhere."""
    return plan.runs / "data" / plan.corpus.fingerprint if plan.corpus.spec.tokenizer else None


def start_pusher(plan: Plan, store: Store, tell: Callable[[str], None]) -> Pusher:
    """Start uploading the stages and the corpus of a plan in the background."""
    pusher = Pusher(store, [stage.path for stage in plan.stages], _corpus_folder(plan), tell)
    pusher.start()
    return pusher


def finish_upload(pusher: Pusher) -> bool:
    """Wait until everything is uploaded. If that fails, print an error and return True."""
    fault = pusher.finish()
    if fault is not None:
        tell_error(f"the stage store is not up to date: {fault}\nRun the same command again to upload missing files.")
    return fault is not None
