"""Reader of the tensors of a checkpoint, based on torch.distributed.checkpoint, which takes a second to import."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from tfscale.checkpoint.contents import BrokenCheckpoint


class _Reader(HuggingFaceStorageReader):
    """Reader that reads the headers of the files only once, and checks that the shards of each tensor have as many
    values as the whole tensor. Values in a gap between shards would be uninitialised."""

    _metadata: Metadata | None = None

    def read_metadata(self) -> Metadata:
        if self._metadata is not None:
            return self._metadata
        metadata = super().read_metadata()
        for name, entry in metadata.state_dict_metadata.items():
            assert isinstance(entry, TensorStorageMetadata)
            if sum(chunk.sizes.numel() for chunk in entry.chunks) != entry.size.numel():
                raise BrokenCheckpoint(f"the shards of {name} do not fill a tensor of shape {tuple(entry.size)}")
        self._metadata = metadata
        return metadata


class Stored:
    """Tensors of a checkpoint, which may have been written by several ranks."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._reader = folder, _Reader(str(folder))

    def shapes(self) -> dict[str, torch.Size]:
        """Return the shapes of the whole tensors by name. Raise BrokenCheckpoint if a file is not a valid safetensors
        file or shards of a tensor are missing."""
        try:
            metadata = self._reader.read_metadata()
        except (SafetensorError, OSError, ValueError, TypeError, LookupError, RuntimeError, BrokenCheckpoint) as error:
            raise BrokenCheckpoint(f"{self._folder}: {error}") from error
        entries = metadata.state_dict_metadata.items()
        return {name: entry.size for name, entry in entries if isinstance(entry, TensorStorageMetadata)}

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Overwrite the given tensors, or this rank's shards of them, with the stored tensors of the same names. Raise
        BrokenCheckpoint if a tensor is missing or has a different shape."""
        try:
            with warnings.catch_warnings():  # there is no process group, which is intended
                warnings.filterwarnings("ignore", message="torch.distributed is disabled")
                load(dict(into), storage_reader=self._reader, no_dist=True)
        except (CheckpointException, SafetensorError, OSError) as error:
            raise BrokenCheckpoint(f"{self._folder}: {error}") from error
