"""Engines: requests in, completions out; `scripted.py` is the one to copy."""
