"""Exchange of models with other software: released TokenFormer weights, Hugging Face, and lm-evaluation-harness."""
