"""Which sites may connect: the roster of the newest federation file, and nobody else.

A version is taken up while the server runs: new sites are let in, revoked ones (and old keys of renewed ones) are not
any more, and the runs that are under way ask the sites anew at their next round. A file that is older, unsigned, or
signed by another coordinator than the one the server was set up with is refused, and the one before stays.

When a site was there last outlives the server, in sites.json: written when a site comes or goes, and on the way out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qfed._flower.superlink import Node, SuperLink
from qfed.errors import ConfigError, ProtocolError
from qfed.federation.files import write_atomically
from qfed.secagg import Federation
from qfed_server.datadir import DataDir
from qfed_server.status import SiteStatus

log = logging.getLogger("qfed.server")


class Registry:
    """The sites of one server."""

    def __init__(self, place: DataDir, link: SuperLink, on_change: Callable[[bytes], None] = lambda file: None) -> None:
        self._place, self._link, self._on_change = place, link, on_change
        self._file = place.federation_file.read_bytes()
        self.federation = place.federation()
        self._refused: bytes | None = None
        self._nodes: dict[str, int] = {}
        self._agents: dict[bytes, str] = {}
        self._copied: set[bytes] = set()
        self._before = _read(place.seen_file)
        self._noted: frozenset[str] = frozenset()
        self.joined: frozenset[str] = frozenset()
        """Sites in the run that is under way."""
        self._apply()

    def look(self) -> None:
        """Take up a newer federation file, if there is one."""
        try:
            file = self._place.federation_file.read_bytes()
        except OSError:
            return  # being replaced, or taken away: the one that was read stays
        if file in (self._file, self._refused):
            return
        try:
            self._take(file)
        except (ConfigError, ProtocolError, UnicodeDecodeError) as error:
            self._refused = file
            log.error("federation.json was replaced by one that is refused, the one before stays: %s", error)

    def _take(self, file: bytes) -> None:
        before, federation = self.federation, Federation.from_text(file.decode())
        if federation.policy.federation_id != before.policy.federation_id:
            raise ConfigError(f"it is of another federation, {federation.policy.federation_id!r}")
        if federation.coordinator.fingerprint() != before.coordinator.fingerprint():
            raise ConfigError(f"another coordinator signed it: {federation.coordinator.fingerprint()}")
        if federation.version <= before.version:
            raise ConfigError(f"it is version {federation.version}, not newer than {before.version}")
        self._file, self.federation, self._refused = file, federation, None
        self._apply()
        self._on_change(file)

    def _apply(self) -> None:
        nodes = {}
        for site in self.federation.roster:
            try:
                nodes[site.name] = self._link.register(site.node_key())
            except ProtocolError as error:
                log.warning("site=%s cannot connect: %s", site.name, error)
        for node in self._link.nodes():
            if node.id not in nodes.values():
                self._link.unregister(node.id)
                log.warning("node=%d is on the roster no more and is let in no more", node.id)
        self._nodes = nodes
        log.info("federation version %d: %d sites may connect", self.federation.version, len(nodes))

    def logged_in(self, key: bytes, agent: str) -> None:
        """Note which program a site logged in with, e.g. qfed/0.1.0."""
        self._agents[key] = agent[:64]

    def copied(self, key: bytes, doubled: bool) -> None:
        """Note that two agents speak for a site, or that one of them is left."""
        node = next((node.id for node in self._link.nodes() if node.key == key), None)
        name = next((name for name, number in self._nodes.items() if number == node), "unknown")
        if doubled:
            self._copied.add(key)
            log.error(
                "two agents speak for site=%s at once: its folder was copied and runs at two places. Neither is served "
                "until one is stopped; call the site, and let it find out which one is the copy", name,
            )  # fmt: skip
        else:
            self._copied.discard(key)
            log.warning("one agent is left of the two that spoke for site=%s; it is served again", name)

    def sites(self) -> tuple[SiteStatus, ...]:
        """Every site of the roster, in order of name."""
        nodes: dict[int, Node] = {node.id: node for node in self._link.nodes()}
        found = []
        for name in sorted(site.name for site in self.federation.roster):
            node = nodes.get(self._nodes.get(name, -1))
            status = SiteStatus(name, self._nodes.get(name), joined=name in self.joined)
            if node is not None:
                agent = self._agents.get(node.key, "")
                version = agent.removeprefix("qfed/") if agent.startswith("qfed/") else None
                status = replace(
                    status,
                    status=node.status,
                    last_seen=node.last_seen,
                    version=version,
                    copied=node.key in self._copied,
                )
            if status.last_seen is None and name in self._before:  # not since this server was started
                status = replace(status, status="offline", **self._before[name])
            found.append(status)
        return tuple(found)

    def note(self, *, leaving: bool = False) -> None:
        """Keep on the disk who was there last, if a site came or went, or the server is `leaving`."""
        sites = self.sites()
        online = frozenset(site.name for site in sites if site.status == "online")
        if leaving or online != self._noted:
            seen = {
                site.name: {"last_seen": site.last_seen, "version": site.version}
                for site in sites
                if site.last_seen is not None
            }
            write_atomically(self._place.seen_file, json.dumps(seen).encode())
            self._noted = online


def _read(file: Path) -> dict[str, Any]:
    """What `note` wrote; nothing when it is not there, or cannot be read."""
    try:
        return {
            str(name): {"last_seen": float(seen["last_seen"]), "version": seen["version"]}
            for name, seen in json.loads(file.read_text(encoding="utf-8")).items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("%s cannot be read (%s): when sites were there last is not known", file, type(error).__name__)
        return {}
