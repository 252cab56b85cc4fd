"""From overrides to an Experiment: Hydra composes, every fault is told at once."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.config.schema import Experiment
from tfscale.faults import UserFault

if TYPE_CHECKING:
    from omegaconf import DictConfig


def conf_dir() -> Path:
    """The shipped configuration: beside the package in a source tree, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def compose(overrides: Sequence[str], config_dir: Path | None = None) -> Experiment:
    """The experiment that the overrides describe.

    Groups are looked for in `config_dir`, in `conf/` of the current folder and in the shipped conf/, in this order.

    Raises:
        UserFault: with every fault that could be found.
    """
    from tfscale.config.origins import with_origins

    try:
        return _composed(overrides, config_dir)
    except UserFault as fault:
        raise UserFault(with_origins(fault.faults, overrides, config_dir)) from fault


def _composed(overrides: Sequence[str], config_dir: Path | None) -> Experiment:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from tfscale.config.search_path import put_first

    folders = config_folders(config_dir)
    put_first(*folders[:-1])
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            parsed = _parse(overrides, folders)
            _check_groups(parsed, folders)
            config = _compose_groups([override.text for override in parsed if override.group])
            _check_keys(parsed, _values(config, []))
            return _to_experiment(_values(config, [override for override in parsed if not override.group]))
    except RecursionError as error:
        raise UserFault(["an override or a configuration file is nested too deeply"]) from error


def group_options(folders: Sequence[Path] | None = None) -> dict[str, list[str]]:
    """Names that can follow `group=`, of every part of an experiment; by default those that are shipped."""
    options: dict[str, set[str]] = {}
    parts = {part.name for part in dataclasses.fields(Experiment)}
    for folder in folders or [conf_dir()]:
        for file in sorted(folder.glob("*/*.yaml")):
            if file.parent.name in parts:
                options.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(names) for group, names in sorted(options.items())}


SEVERAL = ("baseline",)
"""Groups of which several files may be taken together: baseline=[scratch,one_jump]."""


@dataclasses.dataclass(frozen=True)
class _Override:
    text: str
    key: str
    value: Any
    adds: bool
    group: bool


def config_folders(config_dir: Path | None = None) -> list[Path]:
    """Where groups are looked for, in this order: the folder that is asked for, `conf/` of the current folder, the
    shipped one.

    Raises:
        UserFault: `config_dir` is no folder.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise UserFault([f"--config-dir {config_dir}: not a folder"])
    here = Path.cwd() / "conf"
    own = [here] if here.is_dir() and here.resolve() != conf_dir().resolve() else []
    return [*([config_dir.resolve()] if config_dir else []), *own, conf_dir()]


def _parse(overrides: Sequence[str], folders: Sequence[Path]) -> list[_Override]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, groups = OverridesParser.create(), group_options(folders)
    parsed, faults = [], []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except (HydraException, ValueError):  # ValueError: a number of 5,000 digits
            faults.append(
                f"{_short(text)!r} is no override; write key=value, such as schedule=progressive_tiny or optim.lr=1e-3"
            )
            continue
        if override.is_sweep_override() or override.is_delete():
            several = f"; several are written {override.key_or_group}=[{text.partition('=')[2]}]"
            mend = _short(several) if override.key_or_group in SEVERAL else ""
            faults.append(f"{_short(text)!r}: one value a key, please; sweeps and deletions are not taken{mend}")
            continue
        key = override.key_or_group
        parsed.append(_Override(text, key, override.value(), override.is_add(), key in groups))
    if faults:
        raise UserFault(faults)
    return parsed


def _check_groups(overrides: Sequence[_Override], folders: Sequence[Path]) -> None:
    options, faults = group_options(folders), []
    for override in overrides:
        if not override.group:
            continue
        allowed, value = options[override.key], override.value
        names = value if override.key in SEVERAL and isinstance(value, list) and value else [value]
        faults += [
            f"{_short(override.text)}: no such {override.key}{nearest(str(name), allowed)} "
            f"Allowed: {', '.join(allowed)}."
            for name in names
            if name not in allowed
        ]
    if faults:
        raise UserFault(faults)


def _check_keys(overrides: Sequence[_Override], base: dict[str, Any]) -> None:
    faults = []
    for override in overrides:
        known = set(known_keys(Experiment, "", base))
        inside_added = any(override.key.startswith(f"{other.key}.") for other in overrides if other.adds)
        may_add = override.adds and override.key.rpartition(".")[0] in _dicts(Experiment, "")
        if not (override.group or override.key in known or may_add or inside_added):
            key = override.key
            faults.append(f"{_short(override.text)}: unknown key {_short(key)!r}{nearest(key, known)}")
    if faults:
        raise UserFault(faults)


def _short(text: str, longest: int = 100) -> str:
    """The text, or its beginning: a message is to be read."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """`; did you mean ...?`, by the whole key or by its last part."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    leaf = word.rpartition(".")[2]
    close += [key for key in known if key.rpartition(".")[2] == leaf and key not in close]
    return f"; did you mean {' or '.join(close[:3])}?" if close else "."


def known_keys(kind: Any, prefix: str, values: Any) -> Iterator[str]:
    """Every key that exists: fields of the schema, and under dicts the names that the configuration has."""
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        key, hint = f"{prefix}{item.name}", inner_type(hints[item.name])
        value = values.get(item.name) if isinstance(values, dict) else None
        yield key
        if dataclasses.is_dataclass(hint):
            yield from known_keys(hint, f"{key}.", value)
        elif typing.get_origin(hint) is dict and isinstance(value, dict):
            element = inner_type(typing.get_args(hint)[1])
            for name, child in value.items():
                yield f"{key}.{name}"
                if dataclasses.is_dataclass(element):
                    yield from known_keys(element, f"{key}.{name}.", child)


def _dicts(kind: Any, prefix: str) -> Iterator[str]:
    """Keys under which new names may be added with `+`."""
    for item in dataclasses.fields(kind):
        hint = inner_type(typing.get_type_hints(kind)[item.name])
        if dataclasses.is_dataclass(hint):
            yield from _dicts(hint, f"{prefix}{item.name}.")
        elif typing.get_origin(hint) is dict:
            yield f"{prefix}{item.name}"


def inner_type(hint: Any) -> Any:
    """The type behind `X | None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(arg for arg in typing.get_args(hint) if arg is not type(None))
    return hint


def _compose_groups(groups: list[str]) -> "DictConfig":
    """What the files say."""
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        return hydra_compose("config", overrides=groups)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise _not_composed(error) from error


def _values(config: "DictConfig", overrides: Sequence[_Override]) -> dict[str, Any]:
    """The configuration with single values set."""
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    try:
        # Keys that a file leaves to their default do not stand in it, so values are set after composing, not by Hydra.
        with open_dict(config):
            for override in overrides:
                OmegaConf.update(config, override.key, override.value, merge=True)
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise _not_composed(error) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _not_composed(error: Exception) -> UserFault:
    return UserFault([f"the configuration does not compose: {_short(' '.join(str(error).split()), 500)}"])


def _to_experiment(values: dict[str, Any]) -> Experiment:
    from pydantic import TypeAdapter, ValidationError

    unknown = sorted(set(_flat_keys(values)) - set(known_keys(Experiment, "", values)))
    known = set(known_keys(Experiment, "", values))
    roots = [key for key in unknown if key.rpartition(".")[0] not in unknown]
    faults = [f"unknown key {key!r} in a configuration file{nearest(key, known)}" for key in roots]
    try:
        experiment = TypeAdapter(Experiment).validate_python(values)
    except ValidationError as error:
        faults += [_fault(entry) for entry in error.errors()]
    if faults:
        raise UserFault(faults)
    return experiment


def _flat_keys(values: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(values, dict):
        for name, value in values.items():
            yield f"{prefix}{name}"
            yield from _flat_keys(value, f"{prefix}{name}.")


def _fault(entry: Any) -> str:
    # The last parts of a location can be validators' own names; those have brackets.
    key = ".".join(str(part) for part in entry["loc"] if "[" not in str(part))
    message = str(entry["msg"]).removeprefix("Value error, ")
    if entry["type"] == "missing":
        return f"{key} is not set; give it a value: {key}=..."
    if entry["type"] == "value_error" and isinstance(entry["input"], dict):
        return message  # a rule of a whole part, which names its keys itself
    return f"{key}={_short(str(entry['input']))}: {message[:1].lower()}{message[1:]}"


def runs_dir(experiment: Experiment) -> Path:
    """The runs folder as an absolute path.

    Raises:
        UserFault: it begins with the home of a user that does not exist.
    """
    try:
        return Path(experiment.runs).expanduser().absolute()
    except RuntimeError as error:
        raise UserFault([f"runs={experiment.runs}: {error}"]) from error
