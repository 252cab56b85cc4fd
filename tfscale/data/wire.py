"""Tasks and results as lines of JSON: values, lists, paths and the dataclasses of this room, each with its name."""

import dataclasses
import json
from pathlib import Path
from typing import IO, Any


def write_line(file: IO[bytes], value: Any) -> None:
    """Sends a value."""
    file.write(json.dumps(_pack(value)).encode() + b"\n")
    file.flush()


def read_line(file: IO[bytes]) -> Any:
    """The next value, lists as tuples; None at the end, and for a line that was cut short."""
    line = file.readline()
    return _unpack(json.loads(line)) if line.endswith(b"\n") else None


def _pack(value: Any) -> Any:
    if isinstance(value, Path):
        return {"is": "Path", "path": str(value)}
    if isinstance(value, list | tuple):
        return [_pack(item) for item in value]
    if dataclasses.is_dataclass(value):
        fields = {field.name: _pack(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"is": type(value).__name__, **fields}
    return value


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_unpack(item) for item in value)
    if isinstance(value, dict):
        name = value.pop("is")
        if name == "Path":
            return Path(value["path"])
        return _classes()[name](**{name: _unpack(item) for name, item in value.items()})
    return value


def _classes() -> dict[str, type]:
    """What may be sent."""
    from tfscale.data import (
        assemble,
        docstrings,
        duplicates,
        encode,
        manifest,
        readers,
        scan,
        shards,
        wiki,
        work,
        workers,
    )

    classes = (
        assemble.ShardTask, assemble.Shard, docstrings.PackageDocstrings, duplicates.Duplicates, duplicates.RangeTask,
        encode.Distinct, encode.EncodeTask, encode.Encoded, manifest.ShardRecord, readers.Span, readers.TextPart,
        scan.Scan, scan.ScanTask, shards.ShardLabel, wiki.WikiSource, work.Piece, workers.Counts,
    )  # fmt: skip
    return {each.__name__: each for each in classes}
