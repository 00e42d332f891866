"""Simulated sites on disk: the same folder that a deployed site has, with records dealt from one data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qfed.config import RunConfig, SiteConfig, SitePolicy, to_toml
from qfed.data import SiteData
from qfed.errors import ConfigError
from qfed.federation.contribution import policy_of
from qfed.secagg import Federation, Identity

FEDERATION = "simulation"


@dataclass(frozen=True)
class Keys:
    """Identities of all sites, by index, and the federation file that lists them; fresh for every simulation."""

    identities: tuple[Identity, ...]
    federation: Federation

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sites, by index."""
        return tuple(identity.public.name for identity in self.identities)


def make_keys(config: RunConfig, data: Sequence[SiteData]) -> Keys:
    """Generate every site's keys and sign the federation file."""
    identities = tuple(Identity.generate(name) for name in site_names(data))
    coordinator = Identity.generate("coordinator")
    roster = [identity.public for identity in identities]
    return Keys(identities, Federation.create(policy_of(config, FEDERATION), roster, coordinator))


def site_names(data: Sequence[SiteData]) -> tuple[str, ...]:
    """Names that the protocol carries (letters, digits, . _ -), made from the partitions' names."""
    names = tuple(re.sub(r"[^A-Za-z0-9._-]+", "-", site.name).strip("-")[:64] or "site" for site in data)
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ConfigError(f"sites need names that differ in letters and digits, got {', '.join(twice)} more than once")
    return names


def provision(folder: Path, config: RunConfig, data: Sequence[SiteData], keys: Keys) -> None:
    """Write one folder a site below `folder`, numbered by partition."""
    private = config.privacy.mode != "off"
    for index, (site, identity) in enumerate(zip(data, keys.identities, strict=True)):
        place = folder / f"{index:04d}"
        place.mkdir(parents=True)
        settings = SiteConfig(
            name=identity.public.name,
            dataset=identity.public.name,
            coordinator=keys.federation.coordinator.fingerprint(),
            rounding_seed=config.seed,
            policy=SitePolicy(
                epsilon=config.privacy.epsilon,
                delta=config.privacy.delta,
                require_privacy=private,
                require_secagg=config.secagg.mode == "on",
                own_circuits=True,
                trust_provider=config.quantum.trust_provider,
                local_devices=(config.quantum.device,) if config.quantum.remote is False else (),
            ),
        )
        (place / "site.toml").write_text(to_toml(settings), encoding="utf-8")
        identity.save(place / "identity.key", durable=False)
        _put_federation(keys.federation, folder / "0000" / "federation.json", place / "federation.json")
        site.save(place / settings.records)


def _put_federation(federation: Federation, first: Path, path: Path) -> None:
    """Write the federation file of a site: one file under every site's name, since a thousand copies are gigabytes."""
    if path != first:
        try:
            path.hardlink_to(first)
            return
        except OSError:
            pass  # a file system without links gets copies
    federation.save(path)
