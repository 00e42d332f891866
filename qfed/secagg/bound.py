"""Prints how many colluders each size of federation withstands (SECURITY.md has the derivation).

python -m qfed.secagg.bound [SITES ...]
python -m qfed.secagg.bound --groups [SITES/GROUPS ...]        groups that are summed one by one (groups.py)

c < L - 2d  and  m - c >= 2      surely, for colluders that are all on the committee
withstood                        wherever they are: of a drawn committee but for a chance below 2^-40 an epoch
P[failure]                       of a drawn committee, or of drawn groups, when a tenth of all sites collude
                                 (collusion.failure_log2, group_failure_log2)
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from qfed.collusion import ALL_SITES_UP_TO, failure_log2, group_failure_log2
from qfed.secagg.policy import Policy

USUAL = (5, 10, 20, 100, 1000)
USUAL_GROUPS = ("12/4", "20/4", "30/3", "100/5", "100/10", "1000/40", "1000/100")


def table(sizes: Sequence[int]) -> list[str]:
    """Return the table's lines, in Markdown."""
    lines = [
        "| sites | committee L | recoverable d | threshold t | least survivors m | colluders, all on the committee | "
        "withstood, wherever they are | failure when a tenth of all sites collude |",
        "|--:|--:|--:|--:|--:|--:|--:|:--|",
    ]
    for sites in sizes:
        policy = Policy.recommended("table", sites)
        size, drops = policy.committee_size, policy.recoverable_drops
        lines.append(
            f"| {sites} | {size} | {drops} | {policy.threshold} | {policy.min_survivors} | {policy.colluders} | "
            f"{policy.withstands(sites)} | {_failure(policy, sites)} |"
        )
    return lines


def _failure(policy: Policy, sites: int) -> str:
    corrupt = sites // 10
    if sites <= ALL_SITES_UP_TO:
        return f"none: {corrupt} <= {policy.colluders}"
    log2 = failure_log2(policy.committee_size, policy.recoverable_drops, policy.min_survivors, corrupt)
    return f"none: {corrupt} cannot be {policy.colluders + 1}" if math.isinf(log2) else f"2^{log2:.1f} an epoch"


def group_table(sizes: Sequence[str]) -> list[str]:
    """Return the lines for federations of SITES in GROUPS, in Markdown."""
    lines = [
        "| sites | groups | smallest group L | recoverable d | least survivors m | colluders in one group | "
        "more than that together, when a tenth of all sites collude |",
        "|--:|--:|--:|--:|--:|--:|:--|",
    ]
    for size in sizes:
        sites, groups = (int(part) for part in size.split("/"))
        policy = Policy.recommended("table", sites, groups=groups)
        log2 = group_failure_log2(sites, groups, policy.colluders, sites // 10)
        told = f"none: {sites // 10} <= {policy.colluders}" if math.isinf(log2) else f"up to 2^{log2:.1f} an epoch"
        lines.append(
            f"| {sites} | {groups} | {policy.committee_size} | {policy.recoverable_drops} | {policy.min_survivors} | "
            f"{policy.colluders} | {told} |"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table for the sizes given (5, 10, 20, 100 and 1000 if none)."""
    parser = argparse.ArgumentParser(prog="python -m qfed.secagg.bound", description="collusion bound")
    parser.add_argument("sites", nargs="*", type=int, default=list(USUAL), help="numbers of sites")
    parser.add_argument("--groups", nargs="*", metavar="SITES/GROUPS", help="federations with groups instead")
    given = parser.parse_args(arguments)
    lines = table(given.sites) if given.groups is None else group_table(given.groups or USUAL_GROUPS)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
