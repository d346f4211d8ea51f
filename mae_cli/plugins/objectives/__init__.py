"""Objectives: rewarded rows to units, and log-probabilities to a loss; `sft.py` is the one to copy."""
