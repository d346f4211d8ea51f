"""Verifiers: deterministic program checks of an answer against a reference answer."""
