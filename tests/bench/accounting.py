"""The same plans through several accountants: what qfed charges, beside what others say.

    python tests/bench/accounting.py [--json FILE] [--quick]

qfed           epsilon_of: closed form for q = 1; else the smallest of PLD (grid 1e-3, 1e-4 where that costs) and Renyi
PLD fine       dp-accounting's PLD on a grid ten times finer, pessimistic; "at least" is its optimistic bound
Renyi          dp-accounting's RDP accountant, all orders
PRV            Opacus' PRV accountant (eps_error 0.01)
zCDP           rho = T / (2 sigma^2) as a ZCDpEvent: what the discrete Gaussian satisfies without any further argument
GDP            Opacus' "gdp" accountant: a central limit theorem, no bound; below "at least" it is wrong
each round new the epsilon of one round, which a new privacy engine in every round reports as that of the run

Exit status 1 when qfed lies below the optimistic bound.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import dp_accounting
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant
from opacus.accountants import GaussianAccountant, PRVAccountant
from report import finish  # tests/bench/report.py
from rich.console import Console
from rich.table import Table

from qfed.privacy.accounting import ADJACENCY, ORDERS, Releases, epsilon_of

DELTA = 1e-5
GRID = 1e-4


@dataclass(frozen=True)
class Plan:
    """Rounds of steps of one sampled Gaussian mechanism."""

    name: str
    rate: float
    sigma: float
    steps: int
    rounds: int


PLANS = (
    Plan("50 rounds of 5 epochs, n=500, b=32", 1 / 16, 1.0, 4000, 50),
    Plan("TF-Privacy's MNIST tutorial", 256 / 60000, 1.1, 14062, 60),
    Plan("15 rounds of 4 steps, q=0.3", 0.3, 3.43, 60, 15),
    Plan("100 steps, q=0.2", 0.2, 3.0, 100, 10),
    Plan("1000 steps, q=0.01", 0.01, 1.0, 1000, 10),
    Plan("15 rounds of 4 full batches", 1.0, 10.77, 60, 15),
    Plan("40 full batches, shared noise", 1.0, 8.795, 40, 40),
)


def pessimistic(plan: Plan, grid: float = GRID, *, optimistic: bool = False) -> float:
    """PLD on a given grid, from above or from below."""
    once = pld.from_gaussian_mechanism(
        plan.sigma,
        sampling_prob=plan.rate,
        pessimistic_estimate=not optimistic,
        value_discretization_interval=grid,
        use_connect_dots=not optimistic,
    )
    return float(once.self_compose(plan.steps).get_epsilon_for_delta(DELTA))


def others(plan: Plan) -> dict[str, float]:
    """What each accountant says."""
    renyi = RdpAccountant(ORDERS, ADJACENCY).compose(Releases(plan.rate, plan.sigma, plan.steps).event)
    prv, gdp = PRVAccountant(), GaussianAccountant()
    prv.history = gdp.history = [(plan.sigma, plan.rate, plan.steps)]
    zcdp = RdpAccountant(ORDERS, ADJACENCY).compose(dp_accounting.ZCDpEvent(plan.steps / (2 * plan.sigma**2)))
    return {
        "PLD fine": pessimistic(plan),
        "at least": pessimistic(plan, optimistic=True),
        "Renyi": float(renyi.get_epsilon(DELTA)),
        # Opacus' PRV refuses q = 1; its GDP is for subsampling.
        "PRV": float(prv.get_epsilon(DELTA, eps_error=0.01)) if plan.rate < 1 else math.nan,
        "zCDP": float(zcdp.get_epsilon(DELTA)) if plan.rate == 1 else math.nan,
        "GDP": float(gdp.get_epsilon(DELTA)) if plan.rate < 1 else math.nan,
        "each round new": epsilon_of([Releases(plan.rate, plan.sigma, plan.steps // plan.rounds)], DELTA),
    }


def main() -> None:
    """Compare, print both tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="three plans only")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # the optimistic bound is told to use another algorithm, which is meant
    plans = PLANS[2:4] + PLANS[6:] if arguments.quick else PLANS
    table = Table(title=f"epsilon at delta = {DELTA:g}")
    names = ("qfed", "PLD fine", "at least", "Renyi", "PRV", "zCDP", "GDP", "each round new")
    for column in ("plan", "T", "sigma", *names):
        table.add_column(column, justify="left" if column == "plan" else "right")
    figures, below, apart = [], 0, 0.0
    for plan in plans:
        epsilon_of.__globals__["_subsampled"].cache_clear()
        began = time.perf_counter()
        ours = epsilon_of([Releases(plan.rate, plan.sigma, plan.steps)], DELTA)
        seconds = time.perf_counter() - began
        found = {"qfed": ours} | others(plan)
        below += ours < found["at least"]
        apart = max(apart, abs(ours - found["PLD fine"]))
        shown = ["" if math.isnan(found[name]) else f"{found[name]:.3f}" for name in names]
        table.add_row(plan.name, str(plan.steps), f"{plan.sigma:g}", *shown)
        figures += [
            {"name": f"{plan.name}: {name}", "value": value, "unit": "epsilon", "better": "lower"}
            for name, value in found.items()
            if not math.isnan(value)
        ]
        figures.append({"name": f"{plan.name}: time of qfed", "value": 1000 * seconds, "unit": "ms", "better": "lower"})
        if plan.rate < 1:
            gap = abs(ours - found["PRV"])
            figures.append(
                {"name": f"{plan.name}: from PRV", "value": gap, "unit": "epsilon", "goal": 0.02, "better": "lower"}
            )
    Console(width=140).print(table)
    figures += [
        {"name": "largest distance from the fine PLD", "value": apart, "unit": "epsilon", "goal": 1e-3},
        {"name": "plans charged below the optimistic bound", "value": below, "unit": "", "goal": 0},
    ]
    judged = [{"better": "lower"} | figure for figure in figures if "goal" in figure]
    finish("Accountants", judged, ("dp-accounting", "opacus"), None)
    if arguments.json is not None:
        finish(
            "Accountants, all figures", [{"better": "lower"} | f for f in figures], ("dp-accounting",), arguments.json
        )
    if below:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
