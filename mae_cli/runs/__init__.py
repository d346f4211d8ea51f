"""Runs: a run folder, made round by round."""
