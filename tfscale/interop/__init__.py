"""Doors to the rest of the field: released TokenFormer weights, Hugging Face, EleutherAI's evaluation harness."""
