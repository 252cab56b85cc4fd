"""Validation of the settings of a growth operator by the class that the setting `kind` selects."""

from typing import Any

from tfscale.growth.operator import GROWTHS, Growth

DEFAULT = "tokens"
"""Kind of growth operator if none is given."""


class ByKind:
    """Annotation that makes pydantic validate a growth operator by the class that its `kind` selects."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        def tag(values: Any) -> str:
            return f"[{_kind(values)}]"  # in brackets, like the names of validators

        choices = {f"[{name}]": handler.generate_schema(GROWTHS.get(name)) for name in GROWTHS.names}
        return core_schema.no_info_before_validator_function(
            _known, core_schema.tagged_union_schema(choices, discriminator=tag)
        )


def class_of(values: Any) -> type[Growth]:
    """Return the growth class that composed settings name, or the default class if they name none."""
    kind = _kind(values)
    return GROWTHS.get(kind if kind in GROWTHS.names else DEFAULT)


def _kind(values: Any) -> Any:
    return values.get("kind", DEFAULT) if isinstance(values, dict) else DEFAULT


def _known(values: Any) -> Any:
    GROWTHS.get(str(_kind(values)))
    return values
