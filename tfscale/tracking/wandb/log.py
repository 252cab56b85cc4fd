"""Reading of the files `run-*.wandb` that Weights & Biases writes offline.

A file is a log in the format of LevelDB, whose records are protocol buffers of W&B. The wandb package has no Python
reader.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK, _START = 32768, 7
"""Size of a block and of the header at the beginning of the file, in bytes."""
_HEAD = struct.Struct("<IHB")
"""Header of a fragment of a record: checksum, size and type."""
_WHOLE, _FIRST, _LAST = 1, 2, 4


def logs(folder: Path, run_id: str = "*") -> list[Path]:
    """Return the log files of a run, or by default of all runs, in order of creation. A run can have
    several logs, because each process that writes to a run starts a new log."""
    return sorted(folder.glob(f"wandb/offline-run-*/run-{run_id}.wandb"))


def rows(log: Path) -> Iterator[dict[str, Any]]:
    """Yield the complete rows of metric values (the W&B history) in a log. A row that a killed process left incomplete
    is skipped."""
    from wandb.proto.wandb_internal_pb2 import Record

    for content in _records(log.read_bytes()):
        record = Record.FromString(content)
        if record.WhichOneof("record_type") == "history":
            yield {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}


def _records(content: bytes) -> Iterator[bytes]:
    at, record = _START, b""
    while at + _HEAD.size <= len(content):
        left = _BLOCK - at % _BLOCK
        if left < _HEAD.size:
            at += left  # padding: the end of the block is too short for a header
            continue
        _, size, kind = _HEAD.unpack_from(content, at)
        part = content[at + _HEAD.size : at + _HEAD.size + size]
        if kind == 0 or len(part) < size:
            return
        record = part if kind in (_WHOLE, _FIRST) else record + part
        if kind in (_WHOLE, _LAST):
            yield record
        at += _HEAD.size + size
