"""Recipes: every key with its default, the files they are read from, and the roles."""
