"""Differential privacy: `plan` is the only door to noise, `ledger` keeps what was spent, `accounting` computes it."""
