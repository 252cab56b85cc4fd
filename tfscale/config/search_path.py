"""Has Hydra look into folders of the user's before the shipped ones; `hydra.searchpath` can only add them behind."""

from pathlib import Path
from typing import ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin


class OwnFolders(SearchPathPlugin):
    """Hydra makes an object of it whenever it sets up a search path."""

    folders: ClassVar[tuple[Path, ...]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Puts the folders first, in their order."""
        for folder in reversed(self.folders):
            search_path.prepend("tfscale", f"file://{folder}")


def put_first(*folders: Path) -> None:
    """From now on, configurations are looked for in these folders first."""
    OwnFolders.folders = folders
    Plugins.instance().register(OwnFolders)
