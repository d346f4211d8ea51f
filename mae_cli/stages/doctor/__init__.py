"""Checks of `mae doctor`: environment, model, chat template, adapter, recipe, servers; each finding with its fix."""
