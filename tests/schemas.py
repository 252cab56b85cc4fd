"""Comparison of printed JSON documents with their types in docs/json_documents.py."""

import json
import sys
from typing import Any

from documented import ROOT
from pydantic import TypeAdapter

sys.path.insert(0, str(ROOT / "docs"))

from json_documents import DOCUMENTS
from json_schemas import file_of, schema_of

__all__ = ["DOCUMENTS", "checked", "file_of", "schema_of"]


def checked(command: str, printed: str) -> Any:
    """Return the document that a command has printed, after a check that it has the fields of its type and no others,
    with values of their types."""
    adapter = TypeAdapter(DOCUMENTS[command])
    document = json.loads(printed)
    assert adapter.dump_python(adapter.validate_json(printed, strict=True), mode="json") == document
    return document
