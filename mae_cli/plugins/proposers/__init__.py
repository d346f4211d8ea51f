"""Proposers: a proposal is prompted from nothing, from references, or by chance from either."""
