"""What the start of a command imports: only what it needs, since that is what its user waits for."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("qfed.cli.app", "torch pennylane flwr numpy pydantic cryptography httpx matplotlib"),
        ("qfed_client.connect", "torch pennylane opacus scipy matplotlib"),
        ("qfed_client.app", "pennylane matplotlib sklearn pandas"),
        ("qfed_server.host", "flwr starlette uvicorn matplotlib torch"),
        ("qfed_server.datadir", "flwr cryptography numpy"),
    ],
)
def test_an_import_brings_nothing_that_is_not_needed_yet(module: str, without: str) -> None:
    code = f"import sys, {module}; print(*sorted(set('{without}'.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=240, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_a_site_of_the_classical_twin_never_loads_pennylane() -> None:
    code = (
        "import sys; from qfed.config import load_config; from qfed.federation.local import learner_for; "
        "learner_for(load_config(None, ['data.source=wine', 'model.kind=twin'])); assert 'pennylane' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
