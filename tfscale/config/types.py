"""Types of paths for settings; types of numbers are in `tfscale.ranges`."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def _usable(text: str) -> str:
    """Return the path with `~` expanded.

    Raises:
        ValueError: the path is not valid on this machine.
    """
    if not text:
        raise ValueError("must name a file or folder; try a name, or omit the setting")
    try:
        path = str(Path(text).expanduser()) if text.startswith("~") else text
        Path(path).stat()
    except FileNotFoundError:
        pass  # created later, or reported as missing
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"must be a valid path ({reason}); try another path") from None
    return path


PathText = Annotated[str, AfterValidator(_usable)]
"""Path of a file or folder; `~` is the home folder."""
