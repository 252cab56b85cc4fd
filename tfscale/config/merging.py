"""Merging of configuration files and overrides, with Hydra and OmegaConf."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tfscale.config.aliases import rename_keys
from tfscale.config.folders import File, conf_dir, find, read_file
from tfscale.config.keys import one_line
from tfscale.config.overrides import Override
from tfscale.faults import Fault, UserFault

ROOT = "config"


class UserFolders(SearchPathPlugin):
    """Hydra plugin that adds the user's folders to the search path before the shipped folder. The setting
    `hydra.searchpath` would add them after the shipped folder."""

    folders: ClassVar[Sequence[Path]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in reversed(self.folders):
            search_path.prepend("tfscale", f"file://{folder}")


@contextmanager
def _loader(folders: Sequence[Path]) -> Iterator[ConfigLoader]:
    UserFolders.folders = folders[:-1]
    Plugins.instance().register(UserFolders)
    GlobalHydra.instance().clear()
    with _composition_faults(), initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@contextmanager
def _composition_faults() -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserFault([f"the configuration cannot be composed: {one_line(error)}"]) from error


def merged_files(groups: Sequence[str], folders: Sequence[Path]) -> DictConfig:
    """Return the merged values of the configuration files, or raise UserFault if the files cannot be merged.

    Args:
        groups: overrides that choose files, such as `growth=paper`.
        folders: folders to search, in order of decreasing precedence. The last folder is the shipped one.
    """
    with _loader(folders):
        config = compose(ROOT, overrides=list(groups))
    rename_keys(values := to_dict(config, resolve=False))
    return OmegaConf.create(values)


def chosen_files(groups: Sequence[str], folders: Sequence[Path]) -> list[File]:
    """Return the files that `merged_files` merges, in order of increasing precedence."""
    with _loader(folders) as loader:
        chosen = loader.compute_defaults_list(ROOT, list(groups), RunMode.RUN).defaults
    found = [(find(f"{each.config_path}.yaml", folders), each) for each in chosen]
    return [read_file(path, each.package or "", each.parent == ROOT) for path, each in found if path]


def set_values(config: DictConfig, overrides: Sequence[Override]) -> tuple[dict[str, Any], list[Fault]]:
    """Set the values of the overrides in `config`, in place. Return all values of the configuration as nested
    dictionaries, and a fault for each override that cannot be applied."""
    faults = []
    # The files omit keys that have their default value, so values are set after composition, not by Hydra.
    for override in overrides:
        try:
            OmegaConf.update(config, override.key, override.value, merge=True)
        except OmegaConfBaseException as error:
            faults.append(Fault(override.key, override.typed, one_line(error)))
    rename_keys(values := to_dict(config))
    return values, faults


def to_dict(config: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """Return the values of a configuration as nested dictionaries, or raise UserFault if an interpolation cannot be
    resolved. With `resolve=False`, interpolations are kept as text."""
    with _composition_faults():
        values = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
