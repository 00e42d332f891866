"""Differential privacy: `plan` is the only door to noise, `ledger` keeps what was spent, `accounting` computes it.

Import from the modules: `qfed.privacy.plan` needs torch and Opacus, `ledger` and `accounting` do not.
"""
