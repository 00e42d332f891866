"""Rounds of a federation: update and model as flat vectors, local round, aggregate, results, in-process engine."""
