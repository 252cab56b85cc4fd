"""Composition of an experiment from configuration files and overrides. All faults are reported together."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_origin

from tfscale.config.aliases import renamed_override
from tfscale.config.folders import conf_dir, config_folders, foreign_faults, group_options
from tfscale.config.keys import inner_type, known_keys, nearest, short, type_of
from tfscale.config.merging import merged_files, set_values, to_dict
from tfscale.config.origins import with_places
from tfscale.config.overrides import SEVERAL, Override, parse
from tfscale.config.schema import Experiment
from tfscale.config.values import to_experiment
from tfscale.extensions import installed_extensions, load_extensions
from tfscale.faults import Fault, InvalidInput, UserFault, as_faults


def compose(overrides: Sequence[str], config_dir: Path | None = None) -> Experiment:
    """Return the experiment composed from the overrides and the configuration files. The files are searched in the
    folders that `config_folders(config_dir)` returns.

    Raises:
        UserFault: the experiment is invalid; the error contains all faults found.
    """
    return draft(overrides, config_dir).settled()


@dataclass(frozen=True)
class Draft:
    """Experiment that is being checked, with the faults found so far. Invalid values have been replaced by shipped or
    default values, so that the checks can continue."""

    experiment: Experiment
    faults: tuple[Fault, ...]
    overrides: tuple[str, ...]
    config_dir: Path | None

    def check(self, rules: Callable[[Experiment], Iterable[Fault | str]], needs: Sequence[str] = ()) -> "Draft":
        """Return a copy of the draft with the additional faults that `rules` finds. A fault is left out if its key, or
        a key that its rule reads, already has a fault. `rules` is not called if the key `schedule`, a key in `needs`,
        or a key below a key in `needs` already has a fault."""
        at_fault = [_root(fault.key) for fault in self.faults if fault.key]
        # A schedule sets values in all parts, so a rule between settings is meaningful only with a valid schedule.
        if "schedule" in at_fault or any(f"{key}.".startswith(f"{need}.") for key in at_fault for need in needs):
            return self
        found = [fault for fault in as_faults(rules(self.experiment)) if not _follows(fault, at_fault)]
        return replace(self, faults=(*self.faults, *found))

    def settled(self) -> Experiment:
        """Return the experiment, or raise UserFault with all faults of the draft if there are any."""
        if self.faults:
            raise UserFault(with_places(self.faults, self.overrides, self.config_dir))
        return self.experiment


def _follows(fault: Fault, at_fault: Iterable[str]) -> bool:
    """Return whether the fault's key, or a key that its rule reads, is in `at_fault` or below a key in `at_fault`."""
    return any(f"{key}.".startswith(f"{root}.") for key in (fault.key, *fault.reads) for root in at_fault)


def _root(key: str) -> str:
    # The settings of a stage or of an arm depend on each other, so a fault of one setting counts for all of them.
    match = re.match(r"schedule\.stages\.\w+|baseline\.arms\.\w+", key)
    return match[0] if match else key


def draft(overrides: Sequence[str], config_dir: Path | None = None) -> Draft:
    """Return a draft of the experiment, with the faults of the overrides and of the configuration files. Raise
    UserFault if these faults prevent the composition of an experiment that can be checked further."""
    overrides = [renamed_override(text) for text in overrides]
    try:
        experiment, faults = _composed(overrides, config_dir)
    except UserFault as fault:
        raise UserFault(with_places(list(dict.fromkeys(fault.faults)), overrides, config_dir)) from fault
    except RecursionError as error:
        raise UserFault(["an override or a configuration file is nested too deeply; try fewer levels"]) from error
    return Draft(experiment, tuple(dict.fromkeys(faults)), tuple(overrides), config_dir)


def _composed(overrides: Sequence[str], config_dir: Path | None) -> tuple[Experiment, list[Fault]]:
    faults, folders = foreign_faults(config_folders(config_dir))
    options = group_options(folders)
    parsed, unread = parse(overrides, options)
    faults += unread
    chosen = []
    for override in parsed:
        if override.group and (unknown := _unknown_names(override, options)):
            faults += unknown
        elif override.group:
            chosen.append(override.text)
    try:
        config = merged_files(chosen, folders)
        base = to_dict(config)
        faults += _load_extensions(parsed, base)
        keys, single = _known(parsed, base, faults)
        faults += keys
        values, unset = set_values(config, single)
    except UserFault as fault:
        raise UserFault([*faults, *fault.faults]) from fault
    faults += unset
    experiment, wrong = to_experiment(values, lambda: to_dict(merged_files([], [conf_dir()])), faults)
    return experiment, [*faults, *wrong]


def _load_extensions(overrides: Sequence[Override], base: dict[str, Any]) -> list[Fault]:
    """Import the installed extensions and the modules in the setting `extensions`. Return a fault for each module that
    cannot be imported."""
    named = [override.value for override in overrides if override.key == "extensions"] or [base.get("extensions", [])]
    modules = [module for module in named[-1] if isinstance(module, str)] if isinstance(named[-1], list) else []
    try:
        load_extensions([*installed_extensions(), *modules])
    except InvalidInput as error:
        return error.faults
    return []


def _unknown_names(override: Override, options: dict[str, list[str]]) -> list[Fault]:
    allowed, value = options[override.key], override.value
    names = value if override.key in SEVERAL and isinstance(value, list) and value else [value]
    return [
        Fault(
            override.key,
            override.typed,
            f"unknown {override.key}{nearest(str(name), allowed)} Allowed: {', '.join(allowed)}.",
        )
        for name in names
        if name not in allowed
    ]


def _known(
    overrides: Sequence[Override], base: dict[str, Any], before: Sequence[Fault]
) -> tuple[list[Fault], list[Override]]:
    """Return a fault for each override with an unknown key, and the overrides that set the value of a known or added
    key. A fault is left out if the part of the configuration to which the key belongs has a fault in `before`."""
    known = set(known_keys(base))
    added = tuple(f"{override.key}." for override in overrides if override.adds)
    at_fault = {fault.key for fault in before}
    faults, single = [], []
    for override in overrides:
        key = override.key
        may_add = override.adds and get_origin(inner_type(type_of(key.rpartition(".")[0]))) is dict
        if override.group:
            continue
        if key in known or may_add or key.startswith(added):
            single.append(override)
        elif key.partition(".")[0] not in at_fault:
            faults.append(Fault(short(key), override.typed, f"unknown key{nearest(key, known)}"))
    return faults, single


def runs_dir(experiment: Experiment) -> Path:
    """Return the absolute path of the runs folder."""
    return Path(experiment.runs).absolute()
