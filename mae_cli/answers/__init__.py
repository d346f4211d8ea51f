"""Answers: what a text states (numbers, choices, programs, tagged answers), read without a model."""
