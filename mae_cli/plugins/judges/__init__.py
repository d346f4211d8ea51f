"""Judges: model-graded checks and the reading of their verdicts; an engine is passed in."""
