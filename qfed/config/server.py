"""`server.toml`: how the aggregation server is reached, and its limits. All other files lie in the same folder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qfed.config.section import Flag, Number, Positive, Section, Whole

Port = Annotated[Whole, Field(ge=1, le=65535)]


class ServerConfig(Section):
    """The aggregation server."""

    name: str = "aggregator"
    """Name of the server, for people."""
    address: str = "localhost:9443"
    """host:port that sites connect to; the host stands in the server's certificate."""
    listen: str = "0.0.0.0"  # noqa: S104  sites are elsewhere; the public listener is made for that
    """Address of this machine that the public listener binds to."""
    port: Port = 9443
    """Port of the public listener."""
    dashboard: Port | None = None
    """Port on 127.0.0.1 for the dashboard, beside the private socket; leave out for none."""
    dashboard_admin: Flag = False
    """Whether runs may be submitted and stopped on the dashboard; else it only shows them."""
    patience: Annotated[Number, Field(ge=0)] = 30.0
    """Seconds for which a site that went offline is waited for in each step of a round."""
    connections: Literal["disk", "memory"] = "disk"
    """Where Flower keeps who is connected and the messages under way: in superlink.db, or in memory, which costs a
    third to a sixth of the CPU time a message and room for a model a site. No run depends on it."""
    poll: Positive = 2.0
    """Seconds between two looks at federation.json for a newer version."""
    largest_message: Annotated[Whole, Field(ge=1, le=1024)] = 256
    """Megabytes above which a request to the public listener is refused."""
    most_queued: Annotated[Whole, Field(ge=1)] = 100
    """Runs that may wait at a time."""
