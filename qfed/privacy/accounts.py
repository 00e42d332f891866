"""Under which name a ledger counts: one budget for each unit and each set of records that no record is in twice.

A data set's name stands for its training records, at the level of records. Held-out records are others, so what is
released about them is no loss of the training records' (parallel composition; which record is held out does not depend
on any record). A guarantee for whole sites is another promise than one for records, and has a budget of its own.
"""

from __future__ import annotations

from typing import Literal


def account(dataset: str, unit: Literal["record", "site"] = "record", *, held_out: bool = False) -> str:
    """The name in the ledger for `dataset`, at `unit`; `held_out` for its evaluation records."""
    return dataset + (" @site" if unit == "site" else "") + (" @held-out" if held_out else "")
