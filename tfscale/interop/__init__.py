"""Exchange of models with other software: released TokenFormer weights, Hugging Face, and EleutherAI's harness."""
