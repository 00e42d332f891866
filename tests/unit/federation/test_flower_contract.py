"""Which of Flower's internals that qfed stands on are where they were; read it first when flwr is bumped."""

from __future__ import annotations

import importlib
import inspect
import os

import pytest

INTERNALS = [
    ("flwr.supercore.run", "Run"),
    ("flwr.supercore.task_identity", "TaskIdentity"),
    ("flwr.simulation.run_simulation", "_run_simulation"),
    ("flwr.common.constant", "SUPERLINK_NODE_ID"),
    ("flwr.common.constant", "RUN_ID_NUM_BYTES"),
    ("flwr.common.constant", "TASK_ID_NUM_BYTES"),
    ("flwr.server.superlink.linkstate.utils", "generate_rand_int_from_bytes"),
    ("flwr.supercore.constant", "NOOP_FEDERATION_ID"),
    ("flwr.supercore.telemetry", "EventType"),
]


@pytest.mark.parametrize(("module", "name"), INTERNALS)
def test_internal_is_there(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


def test_run_simulation_takes_what_we_pass() -> None:
    from flwr.simulation.run_simulation import _run_simulation

    taken = set(inspect.signature(_run_simulation).parameters)
    assert {"num_supernodes", "exit_event", "client_app", "server_app", "server_app_context", "app_dir", "run"} <= taken
    assert "backend_config" in taken


def test_grid_is_the_abc_that_we_implement() -> None:
    from flwr.serverapp import Grid

    assert Grid.__abstractmethods__ == {
        "set_run",
        "run",
        "create_message",
        "get_node_ids",
        "push_messages",
        "pull_messages",
        "send_and_receive",
    }


def test_telemetry_and_update_check_are_off() -> None:
    import qfed._flower  # noqa: F401

    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.environ["FLWR_DISABLE_UPDATE_CHECK"] == "1"


def test_flower_is_imported_in_one_package_only() -> None:
    from pathlib import Path

    root = Path(__file__).parents[3]
    importers = [
        str(path.relative_to(root))
        for folder in ("qfed", "server", "client")
        for path in (root / folder).rglob("*.py")
        if any(line.lstrip().startswith(("import flwr", "from flwr")) for line in path.read_text().splitlines())
    ]
    assert {str(Path(name).parent) for name in importers} == {"qfed/_flower"}
