"""Conversion of composed values to an experiment. Shipped values replace invalid values, so that the rules between
settings can be checked as well."""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tfscale.config.keys import flat_keys, known_keys, nearest, short
from tfscale.config.schema import Experiment
from tfscale.faults import Fault, InvalidInput, UserFault
from tfscale.growth.operator import GROWTHS

ROUNDS = 4
"""Maximum number of times that the values of an experiment are checked. Invalid values are replaced after each check,
because an invalid value can hide other faults."""

_MUST = {
    "float": "must be a number",
    "int": "must be a whole number",
    "bool": "must be true or false",
    "string": "must be text; try quotes",
    "dict": "must be a mapping of settings",
    "dataclass": "must be a mapping of settings",
    "list": "must be a list",
    "tuple": "must be a list",
}


def to_experiment(
    values: dict[str, Any], shipped: Callable[[], dict[str, Any]], before: Sequence[Fault]
) -> tuple[Experiment, list[Fault]]:
    """Return the experiment made from composed values, and the faults of the values.

    Args:
        shipped: function that returns the values that replace invalid values.
        before: faults that were found earlier. Faults that follow from these faults are left out.

    Raises:
        UserFault: no experiment can be made, even if invalid values are replaced.
    """
    values = copy.deepcopy(values)
    faults = list(_unknown(values))
    adapter = _adapter(GROWTHS.names)
    for _ in range(ROUNDS):
        try:
            return adapter.validate_python(values), faults
        except ValidationError as error:
            found = [each for entry in error.errors() for each in _faults(entry)]
        known = {fault.key for fault in (*before, *faults)}
        faults += [fault for fault in found if not {fault.key, *fault.reads} & known]
        stand_ins = shipped()
        for fault in found:
            _replace(values, fault.key.split("."), stand_ins)
    raise UserFault([*before, *faults])


@cache
def _adapter(growths: tuple[str, ...]) -> TypeAdapter[Experiment]:
    return TypeAdapter(Experiment)  # contains the schemas of all registered growth operators


def _unknown(values: dict[str, Any]) -> Iterator[Fault]:
    known = set(known_keys(values))
    unknown = [key for key in flat_keys(values) if key not in known]
    for key in unknown:
        if key.rpartition(".")[0] not in unknown:
            yield Fault(key, None, f"unknown key{nearest(key, known)}")


def _faults(entry: Any) -> Iterator[Fault]:
    # The last parts of a location can be names of validators, which have brackets.
    key = ".".join(str(part) for part in entry["loc"] if "[" not in str(part))
    message, error = str(entry["msg"]).removeprefix("Value error, "), entry.get("ctx", {}).get("error")
    if entry["type"] == "missing":
        yield Fault(key, None, "must be set", f"{key}=...")
    elif isinstance(error, InvalidInput):  # rules of a whole part, whose keys begin with the part's name
        above = key.rpartition(".")[0]
        yield from (fault.below(above) for fault in error.faults)
    elif isinstance(entry["input"], dict) and isinstance(error, ValueError):
        yield Fault(key, None, message)
    else:
        yield Fault(key, short(str(entry["input"])), _must(entry, message))


def _must(entry: Any, message: str) -> str:
    if entry["type"] == "literal_error":
        choices = entry["ctx"]["expected"]
        return f"must be {choices}{nearest(str(entry['input']), choices.replace(' or ', ', ').split(', ')).rstrip('.')}"
    return _MUST.get(entry["type"].partition("_")[0]) or message


def _replace(values: dict[str, Any], path: Sequence[str], shipped: Any) -> None:
    """Replace an invalid value in place with the shipped value or, if there is none, with the default. If a required
    value is missing, remove the stage or the arm that requires this value."""
    places = [values]
    for part in path[:-1]:
        inner = places[-1].get(part)
        if not isinstance(inner, dict):
            return
        places.append(inner)
        shipped = shipped.get(part) if isinstance(shipped, dict) else None
    if isinstance(shipped, dict) and path[-1] in shipped:
        places[-1][path[-1]] = copy.deepcopy(shipped[path[-1]])
    elif path[-1] in places[-1]:
        del places[-1][path[-1]]
    elif len(places) > 1:
        del places[-2][path[-2]]
