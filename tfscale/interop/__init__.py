"""Exchange with other software: released TokenFormer weights, Hugging Face, and EleutherAI's evaluation harness."""
