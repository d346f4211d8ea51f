"""Rewards: pure functions from verdicts to a reward, each with its formula and source."""
