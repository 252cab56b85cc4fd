"""Exchange with other software: released TokenFormer weights, Hugging Face, EleutherAI's evaluation harness."""
