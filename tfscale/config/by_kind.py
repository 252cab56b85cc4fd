"""Validation of settings whose class is selected by their `kind`."""

from dataclasses import dataclass
from typing import Any

from tfscale.growth.operator import GROWTHS, Growth


@dataclass(frozen=True)
class ByKind:
    """Annotation that makes pydantic read a growth operator of the given `kind`, or of the default kind if none is
    given."""

    default: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        def tag(values: Any) -> str:
            return f"[{self._kind(values)}]"  # in brackets, like the names of validators

        choices = {f"[{name}]": handler.generate_schema(GROWTHS.get(name)) for name in GROWTHS.names}
        return core_schema.no_info_before_validator_function(
            self._known, core_schema.tagged_union_schema(choices, discriminator=tag)
        )

    def _kind(self, values: Any) -> Any:
        return values.get("kind", self.default) if isinstance(values, dict) else self.default

    def _known(self, values: Any) -> Any:
        GROWTHS.get(str(self._kind(values)))
        return values


def class_of(values: Any = None) -> type[Growth]:
    """Return the growth class that composed settings name, by default the class for parameter tokens."""
    kind = values.get("kind") if isinstance(values, dict) else None
    return GROWTHS.get(kind if kind in GROWTHS.names else "tokens")
