"""Filters: which rows are trained and which are stored; pure functions over whole rows, each drop with its reason."""
