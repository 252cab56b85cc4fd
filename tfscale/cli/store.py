"""The commands `tfscale store ls`, `push`, `pull`, `verify` and `gc`, and functions that download and upload stages and
corpora for commands that train.

The argument `only` of some functions selects stages and corpora by name or by the beginning of the key. If `only` is
empty, all stages and corpora are selected.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from tfscale.cli.common import Common
from tfscale.cli.console import FittedTable, answer, console, say
from tfscale.cli.streams import tell_error
from tfscale.config.compose import runs_dir
from tfscale.config.schema import Experiment
from tfscale.data.stored import stored
from tfscale.faults import Fault, UserFault, user_faults
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.folder import Stage
from tfscale.stage.lock import StageHeld
from tfscale.stage.spec import STAGE_FILE
from tfscale.store.contents import DATA, DONE, Snapshot, find_waste, newest, snapshots
from tfscale.store.contents import verify as verify_snapshot
from tfscale.store.pusher import Pusher
from tfscale.store.remote import Damaged, Store, StoreError
from tfscale.store.stages import pull_corpus, pull_stage, push_corpus, push_stage, state_of
from tfscale.text import gigabytes

T = TypeVar("T")


def list_store(common: Common) -> int:
    """Print the stages and corpora in a store, and return the exit code."""
    store, _ = _opened(common)
    with _store_faults(store):
        found = _newest(store)
    if common.as_json:
        items = [
            {
                "kind": "corpus" if snapshot.item.startswith(DATA) else "stage",
                "name": _name(snapshot),
                "state": snapshot.name,
                "bytes": snapshot.bytes,
            }
            for snapshot in found
        ]
        answer({"store": store.shown, "items": items})
    elif not found:
        say(f"{store.shown}: contains no stage and no corpus")
    else:
        rows = FittedTable(f"stages and corpora in {store.shown}", ["stage or corpus", "state"], ["files", "size"])
        for snapshot in found:
            rows.add_row(_name(snapshot), snapshot.name, str(len(snapshot.files) - 1), gigabytes(snapshot.bytes))
        console.print(rows)
    return 0


def push(common: Common, only: Sequence[str]) -> int:
    """Upload stages and corpora of the runs folder to the store, and return the exit code, which is 1 after an
    error."""
    store, runs = _opened(common)
    stages = [file.parent for file in sorted((runs / "stages").glob(f"*/{STAGE_FILE}")) if state_of(file.parent)]
    corpora = stored(runs / "data")
    chosen = _chosen({folder.name: folder for folder in (*stages, *corpora)}, only, str(runs))

    def upload(folder: Path) -> str:
        push_corpus(store, folder) if folder in corpora else push_stage(store, folder)
        return "in the store"

    return _each(common, store, chosen, upload)


def pull(common: Common, only: Sequence[str]) -> int:
    """Download stages and corpora of the store into the runs folder, and return the exit code, which is 1 after an
    error."""
    store, runs = _opened(common)
    with _store_faults(store):
        found = {_name(snapshot): snapshot for snapshot in _newest(store)}

    def download(snapshot: Snapshot) -> str:
        folder = runs / snapshot.item
        new = pull_corpus(store, folder) if snapshot.item.startswith(DATA) else pull_stage(store, folder)
        return f"taken from the store ({snapshot.name})" if new else "already here"

    return _each(common, store, _chosen(found, only, store.shown), download)


def verify(common: Common, only: Sequence[str]) -> int:
    """Compare the files in a store with their checksums, print the problems, and return the exit code, which is 1 if
    there are problems."""
    store, _ = _opened(common)
    with _store_faults(store), console.status(f"reading {store.shown}"):
        complete = {each.path: each for each in snapshots(store) if each.complete}
        found = list(_chosen(complete, only, store.shown).values())
        problems = [problem for snapshot in found for problem in verify_snapshot(store, snapshot)]
    read = {"snapshots": len(found), "bytes": sum(each.bytes for each in found)}
    if common.as_json:
        answer({"store": store.shown, "sound": not problems, "problems": problems, "read": read})
    else:
        say(*problems, f"{len(problems) or 'no'} problems found in {len(found)} snapshots, {gigabytes(read['bytes'])}")
    return 1 if problems else 0


def gc(common: Common, dry_run: bool) -> int:
    """Remove the files that a store no longer needs or, with `dry_run`, only list them, and return the exit code."""
    store, _ = _opened(common)
    with _store_faults(store):
        waste = find_waste(store)
        if not dry_run:
            store.remove(each.path for each in waste)
    size = sum(each.bytes for each in waste)
    if common.as_json:
        answer({"store": store.shown, "removed": not dry_run, "files": waste, "bytes": size})
        return 0
    for (folder, reason), group in groupby(waste, lambda each: (each.path.rpartition("/")[0], each.reason)):
        files = list(group)
        say(f"{folder}: {len(files)} files, {gigabytes(sum(each.bytes for each in files))}; {reason}")
    say(f"{len(waste)} files, {gigabytes(size)}: {'would be removed' if dry_run else 'removed'}")
    return 0


def _opened(common: Common) -> tuple[Store, Path]:
    """Return the store that the overrides name, and the runs folder. Raise UserFault if no store is named."""
    experiment = common.compose()
    store = store_of(experiment)
    if store is None:
        raise UserFault([Fault("store", "null", "must name a store", "store=s3://BUCKET/FOLDER, or a folder")])
    return store, runs_dir(experiment)


@contextmanager
def _store_faults(store: Store) -> Iterator[None]:
    try:
        yield
    except StoreError as fault:
        raise UserFault([Fault("store", store.shown, f"must be usable ({fault})")]) from fault


def _newest(store: Store) -> list[Snapshot]:
    by_item = groupby(snapshots(store), lambda snapshot: snapshot.item)
    return [best for _, found in by_item if (best := newest(found)) is not None]


def _name(snapshot: Snapshot) -> str:
    return snapshot.item.partition("/")[2]


def _chosen(items: dict[str, T], only: Sequence[str], where: str) -> dict[str, T]:
    """Return the items that `only` selects, or raise UserFault if a name in `only` selects no item. The keys of `items`
    are names, or paths in the store such as `stages/NAME/done`. `where` is the location of the items, which the error
    message names."""

    def fits(item: str, name: str) -> bool:
        stage = item.split("/")[1] if "/" in item else item
        return stage == name or stage.rpartition("-")[2].startswith(name)

    if unknown := [name for name in only if not any(fits(item, name) for item in items)]:
        rule = f"must be in {where}, which has {', '.join(items) or 'nothing'}"
        raise UserFault([Fault("--only", name, rule) for name in unknown])
    return {item: value for item, value in items.items() if not only or any(fits(item, name) for name in only)}


def _each(common: Common, store: Store, items: dict[str, T], act: Callable[[T], str]) -> int:
    """Call `act` for every item, print the results and errors, and return the exit code. If an item fails, the next
    items are still processed, and the exit code is 1."""
    results: dict[str, str] = {}
    faults: list[str] = []
    for name, item in items.items():
        try:
            with console.status(name):
                results[name] = act(item)
        except (StoreError, StageHeld, OSError, ValueError) as fault:
            faults.append(f"{name}: {fault}")
        else:
            say(f"{name}: {results[name]}")
    tell_error(*(f"{fault}\nRun the same command again to resume." for fault in faults))
    if common.as_json:
        answer({"store": store.shown, "items": results, "faults": faults})
    return 1 if faults else 0


def store_of(experiment: Experiment) -> Store | None:
    """Return the store of an experiment, or None if `store` is not set. Raise UserFault if the address of the store is
    invalid."""
    with user_faults():
        return Store(experiment.store) if experiment.store else None


def pull_plan(plan: Plan, store: Store | None) -> Plan:
    """Download the stages of a plan that are in the store. Return the plan or, if it depends on the results of
    downloaded stages, a new plan of the same experiment. If `store` is None, return the plan unchanged."""
    known = plan.known  # before the download, which may decide the end of a stage
    if store is None or not take_stages(plan.decided, store) or known is plan:
        return plan
    return pull_plan(make_plan(plan.experiment), store)


def take_stages(stages: Sequence[Stage], store: Store) -> bool:
    """Download the given stages that are in the store, and return True if at least one finished stage was downloaded.
    Unfinished stages are downloaded with their newest checkpoints."""
    return DONE in [
        _take(store, stage.path.name, partial(pull_stage, store, stage.path, stage.spec)) for stage in stages
    ]


def take_corpus(plan: Plan, store: Store) -> None:
    """Download the corpus of a plan if it is in the store and not on this machine."""
    folder = _corpus_folder(plan)
    if folder is not None:
        _take(store, f"corpus {folder.name}", lambda: DONE if pull_corpus(store, folder) else None)


def _take(store: Store, name: str, download: Callable[[], str | None]) -> str | None:
    """Call `download` for a stage or corpus, and return the name of the downloaded snapshot, or None if nothing was
    downloaded. If the files in the store are damaged or another process works on the stage, print a warning. Raise
    UserFault if the store cannot be read."""
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
    """Return the folder of a plan's corpus in the runs folder, or None if the corpus is in another folder."""
    return plan.runs / "data" / plan.corpus.fingerprint if plan.corpus.spec.tokenizer else None


def start_pusher(plan: Plan, store: Store, tell: Callable[[str], None]) -> Pusher:
    """Start uploading the stages and the corpus of a plan in the background, and return the uploader."""
    pusher = Pusher(store, [stage.path for stage in plan.stages], _corpus_folder(plan), tell)
    pusher.start()
    return pusher


def finish_upload(pusher: Pusher) -> bool:
    """Wait until the upload ends, and return True if it failed. A failure is printed as an error."""
    fault = pusher.finish()
    if fault is not None:
        tell_error(f"the stage store is not up to date: {fault}\nRun the same command again to upload missing files.")
    return fault is not None
