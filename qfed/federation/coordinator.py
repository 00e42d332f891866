"""A coordinator's folder: who belongs to a federation, under which terms, and the key that signs it.

    federation.json   roster, policy, version, signatures: what every site and the aggregator get a copy of
    terms.toml        the settings that the policy follows from; `federation.sites` counts the roster
    coordinator.key   the coordinator's private keys (mode 0600); they stay in this folder

The policy depends on the number of sites (committee, least survivors), so each change of the roster makes it anew from
the same terms. A new version has a new digest, which is in every key: sites that have it share none with those that
do not, and the next round begins a new epoch.

Errors  ConfigError, in one line with the way out; the folder is left as it was
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tomli_w

from qfed.config import RunConfig, load_config, to_tree
from qfed.errors import ConfigError, ProtocolError
from qfed.federation.contribution import policy_of
from qfed.federation.files import write_atomically
from qfed.secagg import Federation, Identity, Policy, PublicIdentity, SecAggRefused

FILE, TERMS, KEY = "federation.json", "terms.toml", "coordinator.key"
LEAST_SITES = 3

Terms = Callable[[int], RunConfig]
"""The settings that the policy follows from, for so many sites."""


def terms_of(file: Path | None, changes: Sequence[str] = ()) -> Terms:
    """The settings of a configuration file (None: the defaults) with changes; the roster says how many sites."""
    return lambda sites: load_config(file, [*changes, f"federation.sites={sites}"])


def found(
    folder: Path, federation_id: str, sites: Sequence[PublicIdentity], terms: Terms, coordinator: str
) -> Federation:
    """Make a new folder with a new coordinator's key and version 1 of the federation file."""
    for name in (FILE, TERMS, KEY):
        if (folder / name).exists():
            raise ConfigError(f"{folder / name} exists already; name another folder, nothing is overwritten")
    with input_errors():
        policy, config = _policy(federation_id, terms, len(sites))
        identity = Identity.generate(coordinator)
        federation = Federation.create(policy, sites, identity)
        folder.mkdir(parents=True, exist_ok=True)
        identity.save(folder / KEY)
    _write(folder, federation, config)
    return federation


def amend(
    folder: Path, *, add: Sequence[PublicIdentity] = (), revoke: Sequence[str] = (), terms: Terms | None = None
) -> Federation:
    """Sign the next version with sites added, revoked, or other terms; a name in both gets its new keys."""
    before = read(folder)
    terms = terms or terms_of(folder / TERMS)
    gone, present = set(revoke), set(before.index)
    if twice := sorted({site.name for site in add} & (present - gone)):
        raise ConfigError(
            f"{', '.join(twice)} is in the federation already; to give it new keys, revoke it in the same step: "
            f"--revoke {twice[0]}"
        )
    with input_errors():
        count = len(present - gone) + len(add)
        policy, config = _policy(before.policy.federation_id, terms, count)
        coordinator = Identity.load(folder / KEY)
        federation = before.amended(coordinator, add=add, revoke=revoke, policy=policy)
    _write(folder, federation, config)
    return federation


def read(path: Path, coordinator: str | None = None) -> Federation:
    """The verified federation file at `path`, or in the folder `path`; `coordinator` is a fingerprint to insist on."""
    file = path / FILE if path.is_dir() else path
    try:
        return Federation.load(file, coordinator)
    except SecAggRefused as error:
        raise ConfigError(f"{file} was changed after the coordinator signed it: {error}") from error
    except ProtocolError as error:
        raise ConfigError(f"{file}: {error}") from error


@contextmanager
def input_errors() -> Iterator[None]:
    """What is wrong with files and values given by a person is a mistake in the input, told in one line."""
    try:
        yield
    except ProtocolError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error


def _policy(federation_id: str, terms: Terms, sites: int) -> tuple[Policy, RunConfig]:
    if sites < LEAST_SITES:
        raise ConfigError(
            f"a federation has at least {LEAST_SITES} sites, since a sum of two hides nobody's part from the other, "
            f"got sites={sites}; collect more public files (qfed site keygen)"
        )
    config = terms(sites)
    return policy_of(config, federation_id), config


def _write(folder: Path, federation: Federation, config: RunConfig) -> None:
    tree = to_tree(config)
    text = "# The policy of federation.json follows from these settings; runs of this federation use the same.\n"
    text += tomli_w.dumps({section: tree[section] for section in ("federation", "privacy", "secagg")})
    with input_errors():
        write_atomically(folder / TERMS, text.encode())
        write_atomically(folder / FILE, federation.to_text().encode())
