"""Plugins: everything a recipe can name besides engines; the table, the contracts, one folder a kind."""
