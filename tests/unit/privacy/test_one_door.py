"""One door: nothing but the plans draws privacy noise or writes to a ledger, by import graph and by code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = {
    ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
    for root in (ROOT, ROOT / "server", ROOT / "client")
    for package in ("qfed", "qfed_server", "qfed_client")
    for path in (root / package).rglob("*.py")
}
PLANS = {
    "qfed.privacy.counts_plan",
    "qfed.privacy.plan",
    "qfed.privacy.shared_plan",
    "qfed.privacy.site_plan",
    "qfed.privacy.zeroth_plan",
    "qfed.privacy.metrics_plan",
}
"""The door, and what stands behind it."""
NOISE = {
    "qfed.privacy.noise": PLANS | {"qfed.privacy.clipping"},
    "qfed.privacy.discrete": {"qfed.privacy.shares"},
    "qfed.privacy.clipping": PLANS,
    "qfed.privacy.shares": PLANS,
}
"""What draws noise, and who may import it."""
OUTSIDE = {"qfed.federation.local": {"qfed.privacy.plan"}}
"""Modules of plans that the rest may import: the door alone."""
DRAWS = {"gaussian", "poisson_sample", "hide", "noisy_mean", "discrete_gaussian", "table_of"}
CHARGES = {"reserve", "settle"}
GENERATORS = {"normal", "laplace", "standard_normal", "normal_", "randn", "randn_like", "laplace_"}
"""Ways of numpy and torch to draw noise; models draw their first weights so, a trace its probes."""
FIRST_WEIGHTS = {
    "qfed.models.",
    "qfed.quantum.",
    "qfed.privacy.gradients.",
    "qfed.generative.born",
    "qfed.generative.rbm",
}


def tree_of(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def imports(module: str) -> set[str]:
    """Names of modules that a module imports anywhere in it, also inside functions and for types only."""
    found: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def calls(module: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            yield name, node.lineno


def test_the_sources_are_all_here() -> None:
    assert {"qfed.privacy.plan", "qfed_server.rounds", "qfed_client.site", "qfed.cli.app"} <= set(SOURCES)
    assert set(SOURCES) >= PLANS


@pytest.mark.parametrize("what", sorted(NOISE))
def test_only_plans_import_what_draws_noise(what: str) -> None:
    assert what in SOURCES
    importers = {module for module in SOURCES if what in imports(module)}
    assert importers, "nothing imports it, so this test would see nothing"
    assert importers <= NOISE[what]


def test_the_rest_of_qfed_comes_through_the_door() -> None:
    for module in SOURCES:
        if not module.startswith("qfed.privacy"):
            assert not imports(module) & (PLANS - {"qfed.privacy.plan"}), module
    assert "qfed.privacy.plan" in imports("qfed.federation.local")


def test_only_plans_call_what_draws_and_charges() -> None:
    allowed = PLANS | {"qfed.privacy.shares", "qfed.privacy.clipping", "qfed.privacy.discrete", "qfed.privacy.noise"}
    charging: set[str] = set()
    for module in SOURCES:
        for name, line in calls(module):
            if name in DRAWS:
                assert module in allowed, f"{module}:{line} draws noise by {name}"
            if name in CHARGES:
                charging.add(module)
    assert charging == PLANS


def test_nobody_draws_gaussian_noise_by_other_means() -> None:
    for module in SOURCES:
        if any(module.startswith(start) for start in FIRST_WEIGHTS):
            continue
        found = [f"{module}:{line}" for name, line in calls(module) if name in GENERATORS]
        assert not found, found


def test_a_charge_comes_before_what_opens_the_records() -> None:
    """In the text of the functions that reserve, nothing is opened, evaluated or hidden before."""
    found = 0
    for module in sorted(PLANS):
        for function in ast.walk(tree_of(module)):
            if not isinstance(function, ast.FunctionDef):
                continue
            order = [
                (node.lineno, node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""))
                for node in ast.walk(function)
                if isinstance(node, ast.Call)
            ]
            reserved = [line for line, name in order if name == "reserve"]
            if reserved:
                found += 1
                opened = [line for line, name in order if name in {"records", "read", "evaluate", "hide", *DRAWS}]
                assert opened, f"{module}.{function.name} opens nothing"
                assert max(reserved) < min(opened), f"{module}.{function.name}"
    assert found == 5
