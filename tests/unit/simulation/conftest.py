"""These tests run small federations in this process."""

from small_run_fixtures import _one_thread, _sites_closed  # noqa: F401  used by pytest
