"""Flower's SuperLink inside this process: its HTTP application, its nodes and its runs, on SQLite or in memory.

The public part (`/v1/fleet/*`) is what sites talk to; everything else of the application belongs behind a private
socket, since Flower's control API asks for no credentials. A site is a node that is registered here by its public
key; there is no other way in. The ServerApp runs in this process on a `LinkGrid` (link_grid.py), so there is no task
token, no app bundle, and nothing that another process could be given.

Its state is what is under way and nothing else: who is connected, and messages until they are answered. What must
outlive the process is in the runs' folders. On SQLite, messages under way take room on the disk; in memory a message
costs the server a third to a sixth of the CPU time, and a server that starts again registers its sites from the roster
under new numbers, after which they log in anew.

Departures from a stock SuperLink: a node that is still counted as online may activate itself again. It has proved that
it holds the key, so it is the same site, started anew after a crash; Flower would make it wait for a minute. And sites
talk to `fleet`, which has the middleware of the fleet API only.
Cost  1.6 s and 60 MB to import; in memory, a model for each site that is asked, until it has taken it
Errors  StateError when the database cannot be opened
"""

from __future__ import annotations

import os
import sqlite3
import warnings
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from qfed._flower import assume_identity  # first: telemetry and update checks are off before Flower is imported
from qfed._flower.link_grid import LinkGrid
from qfed.errors import StateError

LOGIN = "/v1/fleet/activate-node"
"""Where a node logs in."""
KEY_HEADER = FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()
"""Header with the node's key, in base64, as `Node.key` has it."""
STORAGE = (OSError, sqlite3.Error, SQLAlchemyError)
"""What is raised when the disk is full, or the database is locked or damaged."""

Status = Literal["registered", "online", "offline"]


def signed(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the holder of the key in a request's headers made it now, as Flower's own check of it says."""
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
    from flwr.supercore.constant import FLEET_HTTP_SIGNATURE_HEADER
    from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

    try:
        key, signature = (
            b64decode(headers[name], validate=True)
            for name in (KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER.lower().encode())
        )
        told = headers[TIMESTAMP_HEADER.lower().encode()]
        age = (datetime.now(UTC) - datetime.fromisoformat(told.decode("ascii"))).total_seconds()
        if not -SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE:
            return False
        return bool(verify_signature(bytes_to_public_key(key), told, signature))
    except (KeyError, ValueError, TypeError):
        return False


@dataclass(frozen=True)
class Node:
    """A registered site's connection, as the SuperLink sees it; times are Unix seconds."""

    id: int
    key: bytes
    status: Status
    last_seen: float | None


class SuperLink:
    """One SuperLink on the SQLite file at `path`, or (None) in memory.

    `app` is its ASGI application, `fleet` the part of it that sites talk to.
    """

    def __init__(self, path: Path | None = None) -> None:
        from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
        from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
        from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
        from flwr.superlink.config_loader import SuperLinkLifespanConfig
        from flwr.superlink.main import create_app

        if path is not None and not path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        config = SuperLinkLifespanConfig(
            control_address="", health_server_address=None, host="", port=0, insecure=True, certificates=None,
            superexec_auth_secret=os.urandom(32), authn_plugin=NoOpControlAuthnPlugin(), event_log_plugin=None,
            fleet_event_log_plugin=None, enable_event_log=False, artifact_provider=None, enable_supernode_auth=True,
            fleet_api_type="grpc-rere", fleet_api_address=None, simulation=False, ssl_ca_certfile=None,
            ssl_certfile=None, ssl_keyfile=None,
            database=FLWR_IN_MEMORY_DB_NAME if path is None else str(path), isolation="process",
            runtime_dependency_install=False,
        )  # fmt: skip
        try:
            with warnings.catch_warnings():  # how Flower configures Alembic is its own affair
                warnings.simplefilter("ignore", DeprecationWarning)
                self.app: Any = create_app(config, SuperLinkLifespan)
        except STORAGE as error:
            raise StateError(
                f"{path} cannot be opened ({error}); it holds connections only, no run and no model: move it away and "
                "start again"
            ) from None
        self.fleet: Any = _fleet_alone(self.app)
        self._state = self.app.state.linkstate_factory.state()
        self._state.activate_node = _taken_over(self._state)
        for part in (self._state, self._state.object_store):
            _small_caches(part)
        self._task: int | None = None
        self._end_all()

    def close(self) -> None:
        """Let go of the database."""
        for part in (self._state, self._state.object_store):
            if (engine := getattr(part, "_engine", None)) is not None:
                engine.dispose()

    # -- nodes ---------------------------------------------------------------------------------------------------

    def register(self, key: EllipticCurvePublicKey) -> int:
        """Let the holder of a key in, if it is not yet; the node's identifier."""
        from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes

        body = public_key_to_bytes(key)
        known = self._state.get_node_id_by_public_key(body)
        return int(known or self._state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, body, 0))

    def unregister(self, node_id: int) -> None:
        """Let a node in no more; what it sends is refused from now on."""
        from flwr.common.constant import NOOP_FLWR_AID

        (found,) = self._state.get_node_info(node_ids=[node_id])
        if found.online_until is None:  # Flower deletes none that was never there
            self._state.activate_node(node_id, 0)
        self._state.delete_node(NOOP_FLWR_AID, node_id)

    def nodes(self) -> tuple[Node, ...]:
        """Registered nodes."""
        found = self._state.get_node_info(statuses=["registered", "online", "offline"])
        return tuple(Node(n.node_id, bytes(n.public_key), n.status, _last_seen(n)) for n in found)

    # -- runs ----------------------------------------------------------------------------------------------------

    def begin(self, run: str, *, stop: Event, patience: float) -> LinkGrid:
        """Begin a Flower run for qfed's `run` and return the Grid of its ServerApp; one at a time.

        Once `stop` is set the Grid raises Interrupted. `patience` is how many seconds a site that is offline is waited
        for before its messages come back as errors.
        """
        from flwr.common.constant import NOOP_FLWR_AID
        from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType

        number = self._state.create_run(
            "qfed/run", "1", "", {"qfed-run": run}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        (info,) = self._state.get_run_info(run_ids=[number])
        self._task = info.primary_task_id
        if self._state.claim_task(self._task) is None or not self._state.activate_task(self._task):
            raise StateError("the SuperLink did not begin the run; is its database used by another process?")
        assume_identity(number)
        (info,) = self._state.get_run_info(run_ids=[number])
        return LinkGrid(self._state, info, stop=stop, patience=patience)

    def end(self, *, completed: bool) -> None:
        """End the run that was begun last; what sites still send for it is refused, and its messages are deleted."""
        if self._task is not None:
            self._state.finish_task(self._task, "completed" if completed else "stopped", "")
            self._task = None
        self._end_all()

    def keep_alive(self) -> None:
        """Say that the run goes on; Flower ends one of which it has heard nothing for a minute."""
        if (task := self._task) is not None:
            self._state.acknowledge_task_heartbeat(task)

    def _end_all(self) -> None:
        for run in self._state.get_run_info(statuses=["pending", "starting", "running"]):
            self._state.stop_run(run.run_id)
        for run in self._state.get_run_info():
            self._state.cleanup_run(run.run_id)


def _small_caches(part: Any) -> None:
    """Flower lets each of some thirty connections to its database cache 64 MB and map 256; a message passes once."""
    if (engine := getattr(part, "_engine", None)) is None:
        return

    def connected(connection: Any, _: object) -> None:
        for pragma in ("cache_size = -2000", "mmap_size = 0"):  # 2 MB
            connection.execute(f"PRAGMA {pragma}").close()

    event.listen(engine, "connect", connected)
    engine.dispose()  # those that are open are opened again


def _fleet_alone(app: Any) -> Any:
    """The fleet API and /health of `app`, without the middleware of its other APIs.

    Every request to `app` passes nine layers, six of which hand on what is not theirs; for a site's requests that is
    half of the time. What is not known to belong to another API stays.
    """
    from fastapi import FastAPI
    from flwr.supercore.routers import health
    from flwr.supercore.routers.runtime import tracing
    from flwr.superlink.routers.control import middlewares as control
    from flwr.superlink.routers.fleet.middlewares import FleetEventLogMiddleware
    from flwr.superlink.routers.fleet.router import router

    others = {
        control.ControlSensitiveResponseMiddleware, control.ControlAuthenticationMiddleware,
        control.ControlLicenseMiddleware, control.ControlEventLogMiddleware, FleetEventLogMiddleware,
        getattr(tracing, "RuntimeTracingMiddleware", None),  # flwr 1.41 has it
    }  # fmt: skip
    fleet = FastAPI(openapi_url=None, middleware=[part for part in app.user_middleware if part.cls not in others])
    fleet.state = app.state
    fleet.include_router(health.router)
    fleet.include_router(router)
    return fleet


def _taken_over(state: Any) -> Callable[[int, float], bool]:
    """`activate_node` for a node that is thought to be online as well; the caller has authenticated it."""
    activate = state.activate_node

    def taken_over(node_id: int, heartbeat_interval: float) -> bool:
        state.deactivate_node(node_id)
        return bool(activate(node_id, heartbeat_interval))

    return taken_over


def _last_seen(node: Any) -> float | None:
    from flwr.common.constant import HEARTBEAT_PATIENCE

    if node.status == "online":
        return float(node.online_until) - HEARTBEAT_PATIENCE * float(node.heartbeat_interval)
    return datetime.fromisoformat(node.last_deactivated_at).timestamp() if node.last_deactivated_at else None
