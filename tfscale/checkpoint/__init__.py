"""Checkpoints: training state on disk, in one format for any number of ranks, written and read by training and growth.

A checkpoint is a folder:

    step-000000001200/
        *.safetensors    model/<name>, <slot>/<name> of each slot of the optimizer, rng/<device>; whole tensors, or each
                         rank's shares in separate files
        state.json       the model's config and the counters
        manifest.json    size and SHA-256 of every other file; written last

The folder is written under another name, synced and then renamed, so a folder called `step-*` with a manifest is whole.
None of its files can contain code.

The layout is that of torch.distributed.checkpoint's safetensors storage, whose reader reads it for any number of ranks.
Its writer first copies all tensors in memory, which may not fit in addition to the model. Here, files are written one
by one; a file's header says which part of a larger tensor it holds, as that reader expects.
"""

from tfscale.checkpoint.contents import (
    MANIFEST_FILE,
    STATE_FILE,
    BrokenCheckpoint,
    Counters,
    NoRoom,
    Part,
    Ranks,
    folder_name,
)
from tfscale.checkpoint.folder import latest, prune, sweep
from tfscale.checkpoint.manifest import Entries, describe, read_manifest
from tfscale.checkpoint.random import rng_tensors, set_rng
from tfscale.checkpoint.reading import load_model, read, read_state, shapes, verify
from tfscale.checkpoint.writing import check_room, write, write_aside, write_each
from tfscale.totals import Totals

__all__ = [
    "MANIFEST_FILE",
    "STATE_FILE",
    "BrokenCheckpoint",
    "Counters",
    "Entries",
    "NoRoom",
    "Part",
    "Ranks",
    "Totals",
    "check_room",
    "describe",
    "folder_name",
    "latest",
    "load_model",
    "prune",
    "read",
    "read_manifest",
    "read_state",
    "rng_tensors",
    "set_rng",
    "shapes",
    "sweep",
    "verify",
    "write",
    "write_aside",
    "write_each",
]
