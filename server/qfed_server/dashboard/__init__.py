"""The operator's dashboard: sites, runs, audit trail, metrics; server-rendered, without anything from elsewhere."""

from qfed_server.dashboard.app import MOUNT, make_app

__all__ = ["MOUNT", "make_app"]
