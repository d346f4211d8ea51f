"""Data: what `mae data` makes, imports and converts, and the pools of a run."""
