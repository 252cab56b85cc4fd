"""Types of paths and URIs for settings; types of numbers are in `tfscale.ranges`."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from tfscale.faults import without_password


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


def _without_secrets(uri: str) -> str:
    """Return the URI unchanged.

    Raises:
        ValueError: the URI is empty or contains a password.
    """
    if not uri:
        raise ValueError("must be a URI, such as s3://BUCKET/FOLDER; try a URI, or omit the setting")
    if re.search(r"://([^@]*:[^@]*@|.*\?)", uri):
        clean = without_password(uri.partition("?")[0])
        raise ValueError(
            f"must not contain a password or a query; try {clean}, with credentials in the environment or in the file "
            "that the tools of the store read"
        )
    return uri


StoreUri = Annotated[str, AfterValidator(_without_secrets)]
"""URI of a stage store, without credentials."""
