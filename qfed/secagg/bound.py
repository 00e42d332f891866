"""Prints how many colluders each size of federation withstands (SECURITY.md has the derivation).

python -m qfed.secagg.bound [SITES ...]

c < L - 2d  and  m - c >= 2      surely, for colluders that are all on the committee
P[failure]                       of a drawn committee when a tenth of all sites collude (collusion.failure_log2)
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from qfed.secagg.collusion import ALL_SITES_UP_TO, failure_log2
from qfed.secagg.policy import Policy

USUAL = (5, 10, 20, 100, 1000)


def table(sizes: Sequence[int]) -> list[str]:
    """Return the table's lines, in Markdown."""
    lines = [
        "| sites | committee L | recoverable d | threshold t | least survivors m | colluders, all on the committee | "
        "failure when a tenth of all sites collude |",
        "|--:|--:|--:|--:|--:|--:|:--|",
    ]
    for sites in sizes:
        policy = Policy.recommended("table", sites)
        size, drops = policy.committee_size, policy.recoverable_drops
        lines.append(
            f"| {sites} | {size} | {drops} | {policy.threshold} | {policy.min_survivors} | {policy.colluders} | "
            f"{_failure(policy, sites)} |"
        )
    return lines


def _failure(policy: Policy, sites: int) -> str:
    corrupt = sites // 10
    if sites <= ALL_SITES_UP_TO:
        return f"none: {corrupt} <= {policy.colluders}"
    log2 = failure_log2(policy.committee_size, policy.recoverable_drops, policy.min_survivors, corrupt)
    return f"none: {corrupt} cannot be {policy.colluders + 1}" if math.isinf(log2) else f"2^{log2:.1f} an epoch"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table for the sizes given (5, 10, 20, 100 and 1000 if none)."""
    parser = argparse.ArgumentParser(prog="python -m qfed.secagg.bound", description="collusion bound")
    parser.add_argument("sites", nargs="*", type=int, default=list(USUAL), help="numbers of sites")
    print("\n".join(table(parser.parse_args(arguments).sites)))


if __name__ == "__main__":
    main()
