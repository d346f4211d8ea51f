"""Stages: one file per command; each reads a file of rows and writes the next one."""
