"""LoRA training: rows to token ids (`batches`), to log-probabilities (`logprobs`), to an adapter (`trainer`)."""
