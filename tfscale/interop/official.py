"""Import of released TokenFormer checkpoints, which consist of weights and a YAML file of options as in GPT-NeoX.

The weights are either one file `pytorch_model.bin`, or a folder of `layer_XX-model_00-model_states.pt` files that
DeepSpeed wrote. The files are read with `torch.load(weights_only=True)`, which creates only tensors and plain
containers and runs no code from the files. The files are memory-mapped, so that a model of any size is converted one
tensor at a time.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tfscale.faults import UserFault
from tfscale.interop.foreign import Foreign, match
from tfscale.models.block import LAYER_NORM_EPS
from tfscale.models.config import ModelConfig, rotary_dims
from tfscale.models.parameter_tokens import TokenGroup, default_tau
from tfscale.models.rotary import ROTARY_BASE
from tfscale.models.tokenformer import TokenFormerConfig

_REQUIRED = ("num_layers", "hidden_size", "num_attention_heads", "qkv_slot_num", "proj_slot_num", "ffn_slot_num",
             "seq_length")  # fmt: skip
_ALLOWED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "norm": ("layernorm", ("layernorm_nonparam",)),
    "final_norm": ("layernorm", ("layernorm",)),
    "norm_activation_type": ("l2_norm_gelu", ("l2_norm_gelu", "gelu_l2_norm", "softmax")),
    "pos_emb": ("learned", ("rotary", "none")),
    "rotary_emb_base": (ROTARY_BASE, (ROTARY_BASE,)),
    "layernorm_epsilon": (LAYER_NORM_EPS, (LAYER_NORM_EPS,)),
    "no_weight_tying": (False, (False,)),
    "gpt_j_residual": (False, (False,)),
    "use_mup": (False, (False,)),
    "apply_query_key_layer_scaling": (False, (False,)),
    "sliding_window_width": (None, (None,)),
    "model_parallel_size": (1, (1,)),
}
"""Options that affect the output of a model. The values are the default of GPT-NeoX and a tuple of the values that
tfscale supports."""

_FREQUENCIES = "attention.rotary_emb.inv_freq"
"""End of the names of the rotary frequencies in older checkpoints. These buffers are checked but not imported."""
_EMBEDDING = "sequential.0.word_embeddings.weight"
_LAYER_FILES = "layer_"


def read_official(weights: Path, config: Path) -> Foreign:
    """Read a released TokenFormer from its weights and its YAML file.

    Args:
        weights: `pytorch_model.bin`, or a folder of `layer_*.pt` files of DeepSpeed.
        config: YAML file of the model.

    Raises:
        UserFault: an option is missing or has a value that tfscale does not support, a file cannot be loaded without
            running code from it, or tensors are missing, unexpected or of the wrong shape. The error lists all faulty
            options or all faulty tensors.
    """
    options = read_options(config)
    files = _files(weights)
    stored = {name: tensor for file in files for name, tensor in _tensors_of(file).items()}
    embedding = stored.get(_EMBEDDING)
    model = _model(config, options, 0 if embedding is None or embedding.ndim != 2 else len(embedding))
    frequencies = {name: stored.pop(name) for name in list(stored) if name.endswith(_FREQUENCIES)}
    tensors, faults = match(model, stored, lambda name: official_name(name, model))
    faults += _frequency_faults(model, frequencies)
    if faults:
        raise UserFault([f"{weights}: {fault}" for fault in faults])
    return Foreign(model, tensors, format="gpt-neox", files=(*files, config), settings=options)


def read_options(path: Path) -> dict[str, Any]:
    """Return the options of a GPT-NeoX YAML file, with dashes in their names replaced by underscores as in GPT-NeoX.

    Raises:
        UserFault: the file cannot be read or is not a YAML mapping.
    """
    import yaml  # imported here, because other functions of this module do not need it

    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserFault([f"--config {path}: must be a YAML file of the official repository ({error})"]) from error
    if not isinstance(options, dict):
        raise UserFault([f"--config {path}: must be a YAML file of the official repository (it has no options)"])
    return {str(name).replace("-", "_"): value for name, value in options.items()}


def _model(path: Path, options: dict[str, Any], embedding_rows: int) -> TokenFormerConfig:
    faults = list(_option_faults(options))
    if faults:
        raise UserFault([f"--config {path}: {fault}" for fault in faults])
    activation = options.get("norm_activation_type", "l2_norm_gelu")
    qkv, out, ffn = (
        (TokenGroup(n, default_tau(activation, n)),)
        for n in (options[f"{part}_slot_num"] for part in ("qkv", "proj", "ffn"))
    )
    try:
        return TokenFormerConfig(
            n_layer=options["num_layers"],
            d_model=options["hidden_size"],
            n_head=options["num_attention_heads"],
            vocab_size=options.get("padded_vocab_size", embedding_rows) or 1,
            context=options["seq_length"],
            qkv=qkv,
            out=out,
            ffn=ffn,
            norm_activation=activation,
            rotary=float(options.get("rotary_pct", 1.0)) if options["pos_emb"] == "rotary" else 0.0,
        )
    except (ValueError, TypeError) as error:
        raise UserFault([f"--config {path}: {error}"]) from error


def _option_faults(options: dict[str, Any]) -> Iterator[str]:
    for name in (*_REQUIRED, "padded_vocab_size"):
        value = options.get(name)
        if value is None and name in _REQUIRED:
            yield f"{name}: must be set, because it defines the shape of the model"
        elif value is not None and (type(value) is not int or not 0 < value < 2**31):
            yield f"{name}={value!r}: must be a whole number above 0"
    for name, (default, allowed) in _ALLOWED.items():
        value = options.get(name, default)
        if value not in allowed or isinstance(value, bool) != isinstance(allowed[0], bool):
            shown = " or ".join(map(repr, allowed))
            yield f"{name}={value!r}{'' if name in options else ' (by default)'}: must be {shown}"
    kinds = re.findall(r"[a-z_]+", str(options.get("attention_config", "tokenformer")))
    if set(kinds) != {"tokenformer"}:
        yield f"attention_config={options['attention_config']!r}: must be 'tokenformer' for every layer"


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(path.glob(f"{_LAYER_FILES}*-model_*-model_states.pt"))
    if not files:
        rule = "must be pytorch_model.bin or a folder of layer_XX-model_00-model_states.pt files"
        raise UserFault([f"{path}: {rule}"])
    split = [file.name for file in files if "-model_00-" not in file.name]
    if split:
        raise UserFault([f"{path}: must not be split over model-parallel ranks ({split[0]}); merge the ranks first"])
    return files


def _tensors_of(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name. The names of tensors in a layer file of DeepSpeed get the prefix
    `sequential.N`, which the names in `pytorch_model.bin` already have."""
    try:
        held = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged or foreign file can cause any exception
        what = next(iter(str(error).strip().splitlines()), repr(error))
        rule = "cannot be loaded with torch.load(weights_only=True), which does not run code from the file"
        raise UserFault([f"{file}: {rule}: {what}"]) from error
    if not isinstance(held, dict):
        raise UserFault([f"{file}: must be a state dict, not a {type(held).__name__}"])
    others = [str(name) for name, value in held.items() if not isinstance(value, Tensor)]
    if others:
        raise UserFault([f"{file}: must be a state dict that contains only tensors, not {', '.join(others)}"])
    layer = re.match(rf"{_LAYER_FILES}(\d+)", file.name)
    prefix = f"sequential.{int(layer[1])}." if layer else ""
    return {f"{prefix}{name}": tensor for name, tensor in held.items()}


def official_name(name: str, model: ModelConfig) -> str:
    """Return the name that a weight of `LanguageModel` has in the official code. The name is `sequential.N.*`, where N
    is 0 for the embedding, 2 for the first block, and the number of blocks plus 3 for the final norm."""
    if name == "embedding":
        return _EMBEDDING
    if name.startswith("final_norm."):
        return f"sequential.{model.n_layer + 3}.{name.removeprefix('final_')}"
    _, index, rest = name.split(".", 2)
    for ours, theirs in (("attention.qkv.", "attention."), ("attention.output.", "attention.proj."), ("ffn.", "mlp.")):
        if rest.startswith(ours):
            rest = theirs + rest.removeprefix(ours)
    return f"sequential.{int(index) + 2}.{rest.removesuffix('s')}_param_tokens"


def _frequency_faults(model: TokenFormerConfig, frequencies: Mapping[str, Tensor]) -> Iterator[str]:
    r = rotary_dims(model)
    ours = torch.tensor([ROTARY_BASE ** (-j / r) for j in range(0, r, 2)])
    for name, tensor in frequencies.items():
        if tensor.shape != ours.shape or not torch.allclose(tensor.float(), ours, rtol=1e-2):
            yield f"{name}: the rotary frequencies differ from those of the config"
