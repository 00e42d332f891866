"""What the server takes as a run: checked before anybody is asked, so that a mistake is told to who made it.

The sites check all of it again, and more (qfed_client.floor): nothing here protects them.
Errors  ConfigError that names the value and the way out
"""

from __future__ import annotations

import tempfile
from dataclasses import fields
from pathlib import Path

from qfed.config import RunConfig, load_config, replace
from qfed.errors import ConfigError
from qfed.federation.contribution import policy_of
from qfed.secagg import Federation

LARGEST = 1 << 20
"""Bytes of a configuration."""


def admitted(text: str, federation: Federation) -> RunConfig:
    """The configuration in `text`, if this federation can run it."""
    if len(text.encode()) > LARGEST:
        raise ConfigError(f"a configuration has at most {LARGEST} bytes, got {len(text.encode())}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.toml"
        file.write_text(text, encoding="utf-8")
        try:
            config = load_config(file)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(file), "the configuration")) from None
        source = config.data.source
        if source.startswith(folder):  # a relative file name means the site's own, not this folder's
            config = replace(config, {"data.source": str(Path(source).relative_to(folder))})
    _check(config, federation)
    return config


def _check(config: RunConfig, federation: Federation) -> None:
    if config.secagg.mode != "on":
        raise ConfigError(
            'secagg.mode="off" sends updates in clear, which exists in simulations only: qfed simulate; leave it out'
        )
    if config.simulation.failures:
        raise ConfigError("simulation.failures are for qfed simulate; leave them out, real sites fail by themselves")
    sites = len(federation.roster)
    if config.federation.sites != sites:
        raise ConfigError(
            f"federation.sites={config.federation.sites}, but the federation has {sites} sites; set it to {sites}"
        )
    asked, pinned = policy_of(config, federation.policy.federation_id), federation.policy
    if asked != pinned:
        differ = [
            f"{term.name}={getattr(asked, term.name)} (the federation's is {getattr(pinned, term.name)})"
            for term in fields(pinned)
            if getattr(asked, term.name) != getattr(pinned, term.name)
        ]
        raise ConfigError(
            f"the run asks for other terms than those that the sites agreed to: {', '.join(differ)}; use the "
            "[federation], [privacy] and [secagg] sections of the coordinator's terms.toml"
        )
