"""Engines turn prompts into completions; `scripted.py` is the one to copy."""
