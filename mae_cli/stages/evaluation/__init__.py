"""Evaluation: benchmarks, how answers are read, and lm-evaluation-harness, for `mae eval`."""
