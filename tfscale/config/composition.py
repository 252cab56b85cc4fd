"""Composition of configuration files with Hydra, which raises UserFault if the files cannot be composed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tfscale.config.files import File, read_file
from tfscale.config.folders import conf_dir, find
from tfscale.config.keys import one_line
from tfscale.faults import UserFault

ROOT = "config"


class UserFolders(SearchPathPlugin):
    """Plugin that makes Hydra search the user's folders before the shipped one, unlike `hydra.searchpath`."""

    folders: ClassVar[Sequence[Path]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in reversed(self.folders):
            search_path.prepend("tfscale", f"file://{folder}")


@contextmanager
def _loader(folders: Sequence[Path]) -> Iterator[ConfigLoader]:
    UserFolders.folders = folders[:-1]
    Plugins.instance().register(UserFolders)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserFault([f"the configuration cannot be composed: {one_line(error)}"]) from error


def composed(groups: Sequence[str], folders: Sequence[Path]) -> DictConfig:
    """Return the merged values of the files that overrides such as `growth=paper` choose in `groups`, and that are
    found in folders of decreasing precedence, the shipped one last."""
    with _loader(folders):
        return compose(ROOT, overrides=list(groups))


def chosen_files(groups: Sequence[str], folders: Sequence[Path]) -> list[File]:
    """Return the configuration files that Hydra merges, in order of increasing precedence."""
    with _loader(folders) as loader:
        chosen = loader.compute_defaults_list(ROOT, list(groups), RunMode.RUN).defaults
    found = [(find(f"{each.config_path}.yaml", folders), each) for each in chosen]
    return [read_file(path, each.package or "", each.parent == ROOT) for path, each in found if path]
