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
    # qfed._flower.fleet
    ("flwr.app.message", "remove_content_from_message"),
    ("flwr.common.constant", "TIMESTAMP_HEADER"),
    ("flwr.common.serde", "message_from_proto"),
    ("flwr.common.serde", "message_to_proto"),
    ("flwr.supercore.constant", "FLEET_HTTP_PUBLIC_KEY_HEADER"),
    ("flwr.supercore.constant", "FLEET_HTTP_SIGNATURE_HEADER"),
    ("flwr.supercore.error", "FlowerError"),
    ("flwr.supercore.inflatable.inflatable_object", "get_all_nested_objects"),
    ("flwr.supercore.inflatable.inflatable_object", "get_object_tree"),
    ("flwr.supercore.inflatable.inflatable_object", "iterate_object_tree"),
    ("flwr.supercore.inflatable.inflatable_object", "no_object_id_recompute"),
    ("flwr.supercore.inflatable.inflatable_utils", "inflate_object_from_contents"),
    ("flwr.supercore.primitives.asymmetric", "public_key_to_bytes"),
    ("flwr.supercore.primitives.asymmetric", "sign_message"),
    ("flwr.supercore.runtime_version_compatibility", "RuntimeVersionMetadata"),
    ("flwr.supernode.fleet_http_client", "FleetHttpClient"),
    # qfed._flower.superlink and qfed._flower.link_grid
    ("flwr.common.constant", "HEARTBEAT_PATIENCE"),
    ("flwr.common.constant", "NOOP_ACCOUNT_NAME"),
    ("flwr.common.constant", "NOOP_FLWR_AID"),
    ("flwr.supercore.constant", "TaskType"),
    ("flwr.supercore.constant", "FLWR_IN_MEMORY_DB_NAME"),
    ("flwr.supercore.routers", "health"),
    ("flwr.supercore.routers.runtime", "tracing"),
    ("flwr.superlink.routers.control.middlewares", "ControlAuthenticationMiddleware"),
    ("flwr.superlink.routers.control.middlewares", "ControlEventLogMiddleware"),
    ("flwr.superlink.routers.control.middlewares", "ControlLicenseMiddleware"),
    ("flwr.superlink.routers.control.middlewares", "ControlSensitiveResponseMiddleware"),
    ("flwr.superlink.routers.fleet.middlewares", "FleetEventLogMiddleware"),
    ("flwr.superlink.routers.fleet.router", "router"),
    ("flwr.supercore.object_store", "NoObjectInStoreError"),
    ("flwr.superlink.auth_plugin", "NoOpControlAuthnPlugin"),
    ("flwr.superlink.cli.flower_superlink", "SuperLinkLifespan"),
    ("flwr.superlink.config_loader", "SuperLinkLifespanConfig"),
    ("flwr.superlink.main", "create_app"),
]


def test_fleet_client_has_the_calls_that_an_agent_makes() -> None:
    import httpx
    from flwr.supernode.fleet_http_client import FleetHttpClient

    calls = ("ActivateNode", "DeactivateNode", "SendNodeHeartbeat", "PullMessages", "PullObject", "PushObject")
    assert all(hasattr(FleetHttpClient, call) for call in (*calls, "PushMessages", "ConfirmMessageReceived"))
    client = FleetHttpClient("https://localhost:1", interceptors=(), timeout=1.0)
    assert isinstance(client._client, httpx.Client), "an agent turns off its redirects"
    client.close()


def test_what_sites_talk_to_authenticates_them_and_has_no_other_api() -> None:
    import asyncio

    import httpx
    from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState

    from qfed._flower.superlink import SuperLink

    link = SuperLink()
    assert isinstance(link._state, InMemoryLinkState)
    assert link._state.message_ins_store == {}, "where LinkGrid sees whether a message was taken"
    # What a new version adds stays until it is known to be another API's: look at it, then add it to one of the lists.
    assert [getattr(part.cls, "__name__", "") for part in link.fleet.user_middleware] == [
        "BaseHTTPMiddleware",  # errors as JSON
        "ProtobufTranslationMiddleware",
        "NodeAuthMiddleware",
    ]

    async def statuses() -> dict[str, int]:
        transport = httpx.ASGITransport(app=link.fleet)
        async with httpx.AsyncClient(transport=transport, base_url="http://fleet") as client:
            found = {"/health": (await client.get("/health")).status_code}
            for path in ("/v1/fleet/pull-messages", "/v1/control/list-runs", "/v1/runtime/acquire-task", "/docs"):
                reply = await client.post(path, content=b"", headers={"content-type": "application/protobuf"})
                found[path] = reply.status_code
            return found

    assert asyncio.run(statuses()) == {
        "/health": 200, "/v1/fleet/pull-messages": 401, "/v1/control/list-runs": 404, "/v1/runtime/acquire-task": 404,
        "/docs": 404,
    }  # fmt: skip


def test_clock_tolerance_and_error_codes_are_those_that_an_agent_tells_of() -> None:
    from flwr.common import constant
    from flwr.supercore.error import ApiErrorCode

    assert (constant.TIMESTAMP_TOLERANCE, constant.SYSTEM_TIME_TOLERANCE) == (300, 5)
    assert constant.HEARTBEAT_MIN_INTERVAL <= 15 <= constant.HEARTBEAT_MAX_INTERVAL
    assert constant.HEARTBEAT_PATIENCE == 2
    assert (ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED, ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED) == (2004, 2007)


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
