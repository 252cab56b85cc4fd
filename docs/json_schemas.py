"""JSON schemas of the documents that `--json` prints.

`python docs/json_schemas.py` writes them to docs/reference/schemas. The tests compare them with the types in
docs/json_documents.py, and the types with what the commands print.
"""

import json
from pathlib import Path
from typing import Any

from json_documents import DOCUMENTS
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

SCHEMAS = Path(__file__).parent / "reference" / "schemas"


class _AsPrinted(GenerateJsonSchema):
    """Schemas of documents in which every field of a dataclass is printed, and in which names are no titles."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        return field["type"] == "dataclass-field" or super().field_is_required(field, total)

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def file_of(command: str) -> Path:
    """Return the file of a command's schema."""
    return SCHEMAS / f"{command.replace(' ', '_')}.json"


def schema_of(command: str) -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a command's document."""
    made = TypeAdapter(DOCUMENTS[command]).json_schema(mode="serialization", schema_generator=_AsPrinted)
    schema = _without_additions(made)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"tfscale {command} --json", **schema}


def _without_additions(value: Any) -> Any:
    """Return a part of a schema without what some versions of pydantic add and others do not."""
    if isinstance(value, list):
        return [_without_additions(each) for each in value]
    if not isinstance(value, dict):
        return value
    added = {"description": isinstance(value.get("description"), str), "enum": "const" in value}
    added["additionalProperties"] = value.get("additionalProperties") is True
    return {key: _without_additions(part) for key, part in value.items() if not added.get(key)}


def main() -> None:
    SCHEMAS.mkdir(exist_ok=True)
    for command in DOCUMENTS:
        file_of(command).write_text(json.dumps(schema_of(command), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
