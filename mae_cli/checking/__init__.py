"""Checks that may hang or that a model may cheat: a sandbox for programs, killable calls, a reader of mathematics."""
