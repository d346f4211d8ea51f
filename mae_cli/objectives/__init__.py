"""Objectives turn rewards into advantages and log-probabilities into a loss; `sft.py` is the one to copy."""
