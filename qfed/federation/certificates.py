"""A server's certificate as it lies on disk: read it, say what is wrong with it and how long it lasts.

    FOLDER/server.crt   PEM: the server's certificate, then any intermediate ones
    FOLDER/server.key   PEM: its private key, unencrypted, its owner's alone (0600)
    FOLDER/ca.crt       PEM: the authorities that sites trust; left out when that is the operating system's list

Made by `qfed.federation.authority` or by the operator's own authority: nothing here asks which. Chain, host names, key
and constraints are judged by a TLS handshake in memory between OpenSSL and OpenSSL, so by the very rules that a site's
connection follows. Time is an argument, so that an expiry can be foretold.
Errors  ConfigError, in one line with the way out
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from qfed.errors import ConfigError

CA, CERTIFICATE, KEY = "ca.crt", "server.crt", "server.key"
WARN_BEFORE = timedelta(days=30)
WARN_BEFORE_CA = timedelta(days=365)
RENEW = "renew it: qfed federation certify FOLDER"
_TURNS = 20  # flights of a handshake in memory; TLS 1.3 takes three


@dataclass(frozen=True)
class Facts:
    """What a certificate says of itself."""

    subject: str
    issuer: str
    hosts: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    fingerprint: str
    """SHA-256 of the certificate, in groups of four hex digits, as `openssl x509 -fingerprint -sha256` has it."""

    def days_left(self, now: datetime) -> int:
        """Whole days until it expires, negative afterwards."""
        return (self.not_after - now).days


def read(path: Path) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM file, in its order."""
    try:
        return tuple(x509.load_pem_x509_certificates(path.read_bytes()))
    except OSError as error:
        raise ConfigError(
            f"cannot read the certificate {path}: {error.strerror}; qfed federation certify makes one"
        ) from (None)
    except ValueError:
        raise ConfigError(f"{path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----); convert it") from None


def facts(certificate: x509.Certificate) -> Facts:
    """What one certificate says."""
    mark = certificate.fingerprint(hashes.SHA256()).hex()
    return Facts(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        hosts=hosts_of(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint=" ".join(mark[at : at + 4] for at in range(0, len(mark), 4)),
    )


def hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """DNS names and IP addresses that it is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    dns, addresses = names.get_values_for_type(x509.DNSName), names.get_values_for_type(x509.IPAddress)
    return (*dns, *(str(address) for address in addresses))


def expiry(path: Path, now: datetime, *, authority: bool = False) -> str | None:
    """A warning when a certificate of the file expires soon, else None; ConfigError when one is not valid now."""
    soon = WARN_BEFORE_CA if authority else WARN_BEFORE
    way_out = "renew it: qfed federation ca FOLDER --renew" if authority else RENEW
    warnings = []
    for certificate in read(path):
        about = facts(certificate)
        if now >= about.not_after:
            raise ConfigError(f"{path} ({about.subject}) expired on {about.not_after:%Y-%m-%d %H:%M} UTC; {way_out}")
        if now < about.not_before:
            raise ConfigError(
                f"{path} ({about.subject}) is valid from {about.not_before:%Y-%m-%d %H:%M} UTC on, and this machine's "
                f"clock says {now:%Y-%m-%d %H:%M}; set the clock"
            )
        if about.not_after - now < soon:
            warnings.append(
                f"{path} ({about.subject}) expires in {about.days_left(now)} days, on {about.not_after:%Y-%m-%d}; "
                f"{way_out}"
            )
    return warnings[0] if warnings else None


def check(folder: Path, hosts: Sequence[str], now: datetime) -> tuple[str, ...]:
    """Judge what lies in a server's folder `tls`; warnings of expiry, or ConfigError for what no site would accept.

    Without `hosts` the certificate's own names are tried.
    """
    certificate, key, ca = folder / CERTIFICATE, folder / KEY, folder / CA
    authority = ca if ca.exists() else None
    found = [expiry(certificate, now), expiry(ca, now, authority=True) if authority else None]
    own = hosts_of(read(certificate)[0])
    if not own:
        raise ConfigError(
            f"{certificate} names no host (no subject alternative name), so no site accepts it; issue it anew for the "
            "name that sites connect to"
        )
    for host in hosts or own[:1]:
        prove(certificate, key, authority, stood_for(host))
    return tuple(warning for warning in found if warning)


def prove(certificate: Path, key: Path, authority: Path | None, host: str) -> None:
    """Shake hands in memory as a site would with `host`; ConfigError when it would refuse."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(certificate, key, password="")  # an encrypted key is refused, not asked about
    except FileNotFoundError as error:
        raise ConfigError(f"{certificate} and {key} belong together, one is missing ({error.strerror})") from None
    except ssl.SSLError as error:
        why = "does not belong to the certificate" if "MISMATCH" in str(error.reason) else "cannot be used"
        raise ConfigError(
            f"the key {key} {why} {certificate} ({error.reason or 'is it encrypted?'}); put the unencrypted PEM key of "
            "this certificate there, or issue a new pair: qfed federation certify FOLDER HOST --new-key"
        ) from None
    client = ssl.create_default_context(cafile=authority)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_side=False, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    try:
        for turn in range(_TURNS):
            try:
                sides[turn % 2].do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLError as error:
        why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
        raise ConfigError(
            f"a site that connects to {host} would refuse {certificate}: {why}; it is for "
            f"{', '.join(hosts_of(read(certificate)[0]))}, and must be signed by {authority or 'a public authority'}"
        ) from None


def stood_for(name: str) -> str:
    """A host that the name stands for: of a wildcard, one that it covers."""
    return "any" + name[1:] if name.startswith("*.") else name


def is_address(host: str) -> bool:
    """Whether the host is an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
