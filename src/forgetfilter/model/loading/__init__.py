"""A model in memory: checks, placement, tokenizer, weights, and the adapters on it."""
