"""Validated types for settings that hold paths, URIs or growth operators. Numeric types are in `tfscale.ranges`."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import core_schema

from tfscale.faults import without_password
from tfscale.growth.operator import GROWTHS, Growth

DEFAULT = "tokens"
"""Kind of growth operator if none is given."""


def _usable(text: str) -> str:
    """Return the path with a leading `~` expanded. Raise ValueError if the path is not valid on this machine."""
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


class ByKind:
    """Annotation with which pydantic validates the settings of a growth operator as the class that `kind` selects."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        def tag(values: Any) -> str:
            return f"[{_kind(values)}]"  # in brackets, like the names of validators

        choices = {f"[{name}]": handler.generate_schema(GROWTHS.get(name)) for name in GROWTHS.names}
        return core_schema.no_info_before_validator_function(
            _known, core_schema.tagged_union_schema(choices, discriminator=tag)
        )


def class_of(values: Any) -> type[Growth]:
    """Return the growth class that `kind` in composed settings selects, or the default class if `kind` is missing or
    unknown."""
    kind = _kind(values)
    return GROWTHS.get(kind if kind in GROWTHS.names else DEFAULT)


def _kind(values: Any) -> Any:
    return values.get("kind", DEFAULT) if isinstance(values, dict) else DEFAULT


def _known(values: Any) -> Any:
    GROWTHS.get(str(_kind(values)))
    return values


AnyGrowth = Annotated[Growth, ByKind()]
"""Settings of a growth operator."""
