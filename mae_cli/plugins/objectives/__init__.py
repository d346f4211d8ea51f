"""Objectives make units of rewarded rows and a loss of their log-probabilities; `sft.py` is the one to copy."""
