"""Judging: the questions put to judges, their votes, program checks and rewards of `mae judge`."""
