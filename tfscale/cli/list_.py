"""The command `tfscale list`, which lists the options of configuration groups."""

from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from tfscale.cli.common import Common
from tfscale.cli.console import answer, console, prose_width, say
from tfscale.config.folders import conf_dir, config_folders, find, foreign_faults, group_options, read_file, shown
from tfscale.config.keys import nearest
from tfscale.faults import UserFault


@dataclass(frozen=True)
class Choice:
    """Option of a configuration group, such as `exact` in the group `growth`."""

    group: str
    name: str
    about: str
    """Short description of the option, from the comment at the top of its file."""
    file: Path
    own: bool
    """True if the file is in a configuration folder of the user, False if it is installed with tfscale."""


def list_(common: Common, kind: str) -> int:
    """Print the options of a configuration group, and return the exit code. `kind` is the name of the group or its
    plural, or an empty string for all groups."""
    foreign, folders = foreign_faults(config_folders(common.config_dir))
    if foreign:
        raise UserFault(foreign)
    groups = group_options(folders)
    names = {form: group for group in groups for form in (group, f"{group}s")}
    if kind and kind not in names:
        raise UserFault([f"{kind}: unknown group{nearest(kind, names)} Allowed: {', '.join(groups)}."])
    choices = [
        Choice(group, name, read_file(path).about, path, own=not path.is_relative_to(conf_dir()))
        for group in ([names[kind]] if kind else groups)
        for name in groups[group]
        if (path := find(f"{group}/{name}.yaml", folders))
    ]
    if common.as_json:
        answer(choices)
        return 0
    rows = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    rows.add_column(no_wrap=True, overflow="fold")
    rows.add_column()
    if kind:
        for choice in choices:
            rows.add_row(choice.name, choice.about + (f" ({shown(choice.file)})" if choice.own else ""))
    else:
        for group, options in groups.items():
            rows.add_row(group, ", ".join(options))
    console.print(rows, width=prose_width())
    example = names.get(kind, "schedule")
    details = "" if kind else "; details of a group: tfscale list schedule"
    say(f"tfscale plan {example}={groups[example][-1]}{details}")
    return 0
