"""The only package that imports Flower: public names for the rest of qfed, and the few internals it needs.

Telemetry and update checks are off before Flower is imported (set the two variables yourself to turn them on).
`tests/unit/federation/test_flower_contract.py` says which internal moved when flwr is bumped.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
)
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

INSTANCE_HEADER = "qfed-instance"
"""Header with a random number of an agent, by which two agents with the same keys are told apart."""

__all__ = [
    "INSTANCE_HEADER",
    "Array",
    "ArrayRecord",
    "Bulyan",
    "ClientApp",
    "ConfigRecord",
    "Context",
    "Error",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedMedian",
    "FedTrimmedAvg",
    "FedYogi",
    "Grid",
    "Krum",
    "Message",
    "MetricRecord",
    "MultiKrum",
    "OneRunGrid",
    "RecordDict",
    "Run",
    "ServerApp",
    "assume_identity",
    "name_message",
    "run_on_ray",
]

SERVER_NODE = 1


def assume_identity(run_id: int) -> None:
    """Tell Flower's `Message` which run and node this process speaks for; it refuses to be made without."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SERVER_NODE


def name_message(message: Message, message_id: str) -> None:
    """Give a message its identifier, which otherwise a SuperLink does."""
    message.metadata.__dict__["_message_id"] = message_id


def run_on_ray(
    server_app: ServerApp,
    client_app: ClientApp,
    sites: int,
    server_config: dict[str, str],
    client_bundle: Path,
    cpus_per_site: float = 1.0,
) -> None:
    """Run both apps on Flower's Ray runtime until the ServerApp returns; its exception is raised here.

    `client_bundle` is a folder with a pyproject.toml, whose [tool.flwr.app.config] reaches every site's Context:
    without one the runtime hands sites an empty run configuration.
    """
    from flwr.common.constant import RUN_ID_NUM_BYTES, SUPERLINK_NODE_ID, TASK_ID_NUM_BYTES
    from flwr.server.superlink.linkstate.utils import generate_rand_int_from_bytes
    from flwr.simulation.run_simulation import _run_simulation
    from flwr.supercore.constant import NOOP_FEDERATION_ID
    from flwr.supercore.telemetry import EventType

    # Ray warns of what it will do later; this asks for it now.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    run = Run.create_empty(run_id=generate_rand_int_from_bytes(RUN_ID_NUM_BYTES))
    run.primary_task_id = generate_rand_int_from_bytes(TASK_ID_NUM_BYTES)
    run.federation_id = NOOP_FEDERATION_ID
    assume_identity(run.run_id)
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    _run_simulation(
        num_supernodes=sites,
        exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
        client_app=client_app,
        server_app=server_app,
        server_app_context=Context(run.run_id, SUPERLINK_NODE_ID, {}, RecordDict(), dict(server_config)),
        app_dir=str(client_bundle),
        backend_config={
            "init_args": {"logging_level": 30, "log_to_driver": False, "include_dashboard": False},
            "client_resources": {"num_cpus": cpus_per_site, "num_gpus": 0.0},
        },
        run=run,
        is_app=True,  # else the bundle is not read
    )


class OneRunGrid(Grid):
    """What every grid of ours has in common: it speaks for one run."""

    _run: Run

    def set_run(self, run: Run) -> None:
        """Take another run's description."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run's description."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message for one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)
