"""Types of paths for settings. Types of numbers are in `tfscale.ranges`."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def _usable(text: str) -> str:
    """Return the path with `~` expanded.

    Raises:
        ValueError: no file can have this path on this machine.
    """
    if not text:
        raise ValueError("must name a file or folder; try a name, or leave it out")
    try:
        path = str(Path(text).expanduser()) if text.startswith("~") else text
        Path(path).stat()
    except FileNotFoundError:
        pass  # it is created later, or reported as missing
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"must be a path that can be used here ({reason}); try another one") from None
    return path


PathText = Annotated[str, AfterValidator(_usable)]
"""Path of a file or folder; `~` is the home folder."""
