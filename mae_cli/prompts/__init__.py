"""Prompts: the shipped prompt files and the chat templates."""
