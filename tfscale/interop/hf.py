"""Registration of tfscale models with `AutoConfig` and `AutoModelForCausalLM`. Importing this module registers them."""

try:
    from transformers import AutoConfig, AutoModelForCausalLM
except ImportError as error:
    raise ImportError(
        f"tfscale.interop.hf requires transformers. Install it: pip install 'tfscale[hf]' ({error})"
    ) from error

from tfscale.interop.hf_model import TfscaleConfig, TfscaleForCausalLM

AutoConfig.register(TfscaleConfig.model_type, TfscaleConfig, exist_ok=True)
AutoModelForCausalLM.register(TfscaleConfig, TfscaleForCausalLM, exist_ok=True)

__all__ = ["TfscaleConfig", "TfscaleForCausalLM"]
