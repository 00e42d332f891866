"""Everything that the `dev` extra names is installed here, and all of it fits together."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from qfed.errors import MissingExtra

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
VENDORS = ("dwave", "rigetti", "rigetti-qcs", "ibm", "ionq")


def asked(lines: list[str], extras: frozenset[str] = frozenset({""})) -> Iterator[Requirement]:
    """The requirements among `lines` that hold on this machine, those of qfed's own extras spelled out."""
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        if requirement.name == "qfed":
            for extra in requirement.extras:
                yield from asked(EXTRAS[extra])
        else:
            yield requirement


def clashes(requirements: Iterator[Requirement]) -> list[str]:
    """What is missing or of a version that another package refuses, from these down through all they need."""
    found: list[str] = []
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [("qfed", requirement) for requirement in requirements]
    while todo:
        asker, requirement = todo.pop()
        try:
            installed = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            found.append(f"{asker} needs {requirement}, which is not installed")
            continue
        if not requirement.specifier.contains(installed.version, prereleases=True):
            found.append(f"{asker} needs {requirement}, but {installed.version} is installed")
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key not in seen:
            seen.add(key)
            below = asked(installed.requires or [], frozenset({"", *requirement.extras}))
            todo += [(requirement.name, one) for one in below]
    return sorted(set(found))


def test_all_extras_resolve_together() -> None:
    assert not clashes(asked([*PROJECT["dependencies"], "qfed[dev]"]))


def test_a_clash_would_be_seen() -> None:
    assert clashes(asked(["numpy<1"]))[0].startswith("qfed needs numpy<1, but ")
    assert clashes(asked(["no-such-distribution-of-qfed"])) == [
        "qfed needs no-such-distribution-of-qfed, which is not installed"
    ]


def test_hardware_is_every_vendor_and_ci_installs_it() -> None:
    assert set(Requirement(EXTRAS["hardware"][0]).extras) == set(VENDORS)
    assert "hardware" in Requirement(EXTRAS["dev"][0]).extras


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("dimod", "dwave"),
        ("dwave.system", "dwave"),
        ("braket.devices", "rigetti"),
        ("pyquil", "rigetti-qcs"),
        ("pennylane_qiskit", "ibm"),
        ("pennylane_ionq", "ionq"),
    ],
)
def test_a_missing_vendor_is_named_with_the_way_to_get_it(module: str, extra: str) -> None:
    said = str(MissingExtra.of(ModuleNotFoundError(name=module)))
    assert said == f"{module.split('.')[0]} is not installed; install it with: pip install 'qfed[{extra}]'"
    assert extra in EXTRAS


def test_a_module_of_no_extra_stays_a_plain_error() -> None:
    assert MissingExtra.of(ModuleNotFoundError(name="antigravity_of_nobody")) is None
