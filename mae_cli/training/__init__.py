"""Training: rows to token ids (`examples`), to log-probabilities (`logprobs`), to an adapter or a model (`trainer`)."""
