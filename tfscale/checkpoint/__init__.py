"""Checkpoints, which store the training state on disk in one format for any number of ranks.

A checkpoint is a folder:

    step-000000001200/
        *.safetensors    model/<name>, <slot>/<name> for each slot of the optimizer, and rng/<device>: whole tensors, or
                         the shards of each rank in separate files
        state.json       config of the model, and counters
        manifest.json    size and SHA-256 of every other file; written last

The folder is written under another name, synced and then renamed. Therefore a folder `step-*` with a manifest is
complete. No file can contain code.

The format is that of the safetensors storage of torch.distributed.checkpoint, whose reader supports any number of
ranks. Its writer is not used, because the writer first copies all tensors in memory.
"""

from tfscale.checkpoint.contents import MANIFEST_FILE, STATE_FILE, BrokenCheckpoint, Counters, Part, folder_name
from tfscale.checkpoint.manifest import Entries, describe, read_manifest
from tfscale.checkpoint.ranks import Ranks
from tfscale.checkpoint.reading import latest, load_model, read, read_state, shapes, verify
from tfscale.checkpoint.writing import check_room, prune, sweep, write, write_aside, write_each

__all__ = [
    "MANIFEST_FILE",
    "STATE_FILE",
    "BrokenCheckpoint",
    "Counters",
    "Entries",
    "Part",
    "Ranks",
    "check_room",
    "describe",
    "folder_name",
    "latest",
    "load_model",
    "prune",
    "read",
    "read_manifest",
    "read_state",
    "shapes",
    "sweep",
    "verify",
    "write",
    "write_aside",
    "write_each",
]
