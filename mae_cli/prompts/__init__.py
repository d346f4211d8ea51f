"""Prompts: the instructions of each role, and the chat templates that turn messages into token ids."""
