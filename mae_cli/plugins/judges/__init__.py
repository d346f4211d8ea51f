"""Judges: model-graded checks; a judge writes the prompt and reads the reply."""
