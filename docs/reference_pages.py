"""The reference pages, written from the dataclasses of the configuration and from the commands themselves."""

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterator
from typing import Any

import typer
import typer.models

from tfscale.cli.main import app
from tfscale.config.folders import conf_dir, group_options, read_file
from tfscale.config.schema import Experiment
from tfscale.config.types import class_of
from tfscale.growth.operator import Growth


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of the configuration."""

    name: str
    type: str
    default: str
    text: str


def keys(part: Any = Experiment, prefix: str = "") -> Iterator[Key]:
    """Every key below `part`, depth first; NAME stands for names that a file chooses."""
    types, texts = _as_written(part)
    hints = typing.get_type_hints(part)
    for field in dataclasses.fields(part):
        name = f"{prefix}{field.name}"
        inner, step = _part_in(hints[field.name])
        if inner is None or step or _optional(hints[field.name]):
            type_ = _choices(hints[field.name]) or types[field.name]
            yield Key(name, type_, _default(field), texts.get(field.name, ""))
        if inner is not None:
            yield from keys(inner, f"{name}.{step}")


def _as_written(part: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Types and texts of a dataclass' fields, those that it inherits included, as its source has them."""
    types, texts, last = {}, {}, ""
    for statement in (each for cls in part.__mro__[-2::-1] for each in _body(cls)):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            last = statement.target.id
            types[last] = ast.unparse(statement.annotation)
        elif last and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            texts[last] = " ".join(str(statement.value.value).split())
            last = ""
        else:
            last = ""
    return types, texts


def _body(cls: type) -> list[ast.stmt]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    return definition.body


def _part_in(hint: Any) -> tuple[Any, str]:
    """The dataclass inside a type, and the name that a key takes on the way to it."""
    arguments = [each for each in typing.get_args(hint) if each is not type(None)]
    if Growth in (hint, *arguments):
        return class_of(None), ""
    if dataclasses.is_dataclass(hint):
        return hint, ""
    if typing.get_origin(hint) is dict and dataclasses.is_dataclass(arguments[1]):
        return arguments[1], "NAME."
    if _optional(hint) and dataclasses.is_dataclass(arguments[0]):
        return arguments[0], ""
    return None, ""


def _optional(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _choices(hint: Any) -> str:
    """The values of a Literal, as they are typed."""
    return " | ".join(map(str, typing.get_args(hint))) if typing.get_origin(hint) is typing.Literal else ""


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default_factory is not dataclasses.MISSING:
        return "empty"
    if field.default is dataclasses.MISSING:
        return ""
    return (
        str(field.default).lower() if field.default is None or isinstance(field.default, bool) else str(field.default)
    )


def configuration() -> str:
    """A section for each part: the group's files, then its keys."""
    options = group_options()
    rows: dict[str, list[Key]] = {}
    for key in keys():
        rows.setdefault(key.name.partition(".")[0] if "." in key.name else "", []).append(key)
    ours = rows.pop("")
    parts = {key.name for key in ours if key.name in rows}
    sections = [_section("The whole", "", [key for key in ours if key.name not in parts])]
    sections += [_section(f"`{part}`", _files(part, options.get(part, [])), found) for part, found in rows.items()]
    return "\n\n".join(sections)


def _section(title: str, intro: str, found: list[Key]) -> str:
    return "\n\n".join([f"## {title}", *([intro] if intro else []), *map(_entry, found)])


def _entry(key: Key) -> str:
    """An entry of a definition list: tables would be wider than a page."""
    default = f", default `{key.default}`" if key.default else ""
    return f"`{key.name}`\n: `{key.type}`{default}. {key.text.replace('<', '&lt;')}".rstrip()


def _files(group: str, names: list[str]) -> str:
    """The names that can follow `group=`, each with what its file says of itself."""
    files = {name: read_file(conf_dir() / group / f"{name}.yaml") for name in names}
    return "\n".join(f"- `{group}={name}`: {_cell(file.about)}" for name, file in files.items())


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def _cell(text: str) -> str:
    """Text for a cell: no column ends in it, and nothing in it is taken for HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def commands() -> str:
    """A section for each command: what it does, how it is called, its arguments and options."""
    return "\n\n".join(_command(name, function) for name, function in _commands(app, "tfscale"))


def _commands(group: typer.Typer, prefix: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    for command in group.registered_commands:
        if command.callback is not None and not command.hidden:
            yield f"{prefix} {command.name or command.callback.__name__.replace('_', '-')}", command.callback
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            yield from _commands(
                inner.typer_instance, f"{prefix} {inner.name}" if isinstance(inner.name, str) else prefix
            )


def _command(name: str, function: Callable[..., Any]) -> str:
    parameters = [_parameter(*each) for each in _parameters(function)]
    usage = [each.name for each in parameters if not each.name.startswith("-")]
    lines = [f"### {name}", "", inspect.getdoc(function) or "", "", f"`{' '.join([name, *usage])}`"]
    if any(each.name == "--json" for each in parameters):
        schema = f"schemas/{name.partition(' ')[2].replace(' ', '_')}.json"
        lines += ["", f"JSON schema of `--json`: [{schema}]({schema})"]
    lines += ["", "| | default | |", "|---|---|---|"]
    return "\n".join(
        lines + [f"| {_code(each.name)} | {_code(each.default)} | {_cell(each.text)} |" for each in parameters]
    )


def _parameters(function: Callable[..., Any]) -> Iterator[tuple[inspect.Parameter, Any, Any]]:
    """Each parameter of a command with its type and what Typer was told of it."""
    for parameter in inspect.signature(function).parameters.values():
        type_, told = typing.get_args(parameter.annotation)[:2]
        if not told.hidden:
            yield parameter, type_, told


def _parameter(parameter: inspect.Parameter, type_: Any, told: Any) -> Key:
    empty = parameter.default is None or parameter.default is False or parameter.default == ""
    default = "required" if parameter.default is parameter.empty else "" if empty else str(parameter.default)
    value = told.metavar or _choices(type_) or parameter.name.upper()
    if isinstance(told, typer.models.ArgumentInfo):
        return Key(value, "", default, told.help or "")
    # Inside Annotated, Typer keeps an option's first spelling where a default would stand otherwise.
    given = [each for each in (told.default, *(told.param_decls or ())) if isinstance(each, str)]
    spelling = ", ".join(given or [f"--{parameter.name.replace('_', '-')}"])
    return Key(spelling if type_ is bool else f"{spelling} {value}", "", default, told.help or "")


PAGES: dict[str, Callable[[], str]] = {"<!-- configuration -->": configuration, "<!-- commands -->": commands}
"""What stands in a page for what is written from the code."""
