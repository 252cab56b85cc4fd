"""Makes `AutoConfig` and `AutoModelForCausalLM` know exported models: `import tfscale.interop.hf`."""

from transformers import AutoConfig, AutoModelForCausalLM

from tfscale.interop.hf_model import TfscaleConfig, TfscaleForCausalLM

AutoConfig.register(TfscaleConfig.model_type, TfscaleConfig, exist_ok=True)
AutoModelForCausalLM.register(TfscaleConfig, TfscaleForCausalLM, exist_ok=True)

__all__ = ["TfscaleConfig", "TfscaleForCausalLM"]
