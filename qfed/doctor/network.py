"""The way to the server: name and port, TLS with the authority that was handed out, its health, its clock, its expiry.

    clock      the server's Date header (whole seconds) against this machine's clock; Flower refuses the login of a site
               whose clock is more than 5 s ahead of the server's or 300 s behind it
Errors  none: whatever is met on the way is a finding
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from cryptography import x509

from qfed.doctor.check import Check, failed, ok, warning
from qfed.errors import ConfigError
from qfed.federation import certificates
from qfed.federation.invitation import host_and_port

AHEAD, BEHIND = timedelta(seconds=5), timedelta(seconds=300)
NOTED = timedelta(seconds=3)
"""Twice the header's resolution and a slow answer: a difference above is told."""
_PATIENCE = 10.0


def reach(address: str, ca: Path, now: Callable[[], datetime]) -> list[Check]:
    """Each step of a connection in its order, up to the first that fails."""
    try:
        host, port = host_and_port(address)
        context = ssl.create_default_context(cafile=ca)
    except (ConfigError, OSError) as error:  # an SSLError is an OSError
        told = f"{ca} is no usable authority ({error})" if isinstance(error, OSError) else str(error)
        return [failed("server", told, "join again with the coordinator's invitation: qfed site join")]
    try:
        plain = socket.create_connection((host, port), _PATIENCE)
    except socket.gaierror as error:
        return [failed("TCP", f"the name {host} is not known ({error.strerror})", "check the address, or the DNS")]
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        todo = "is the server running, and does a firewall let this machine out to that port?"
        return [failed("TCP", f"{host}:{port} does not answer ({why})", todo)]
    found = [ok("TCP", f"{host}:{port} answers")]
    try:
        with context.wrap_socket(plain, server_hostname=host) as secured:
            found += [ok("TLS", f"{secured.version()}, certified for {host} by the authority in {ca.name}")]
            body = secured.getpeercert(binary_form=True) or b""
            found.append(_expiry(x509.load_der_x509_certificate(body), now()))
            return found + _health(secured, host, port, now)
    except ssl.SSLCertVerificationError as error:
        todo = "ask the server's operator; never connect without this check. Is this machine's clock right?"
        return [*found, failed("TLS", f"the server's certificate is refused: {error.verify_message}", todo)]
    except OSError as error:
        why = getattr(error, "reason", None) or error.strerror or type(error).__name__
        todo = "is something else on that port, or a proxy in between?"
        return [*found, failed("TLS", f"no secure connection comes about ({why})", todo)]
    finally:
        plain.close()


def clock(header: str | None, now: datetime) -> Check:
    """The Date header of an answer against this machine's clock."""
    try:
        there = parsedate_to_datetime(header or "")
        difference = now - there
    except (ValueError, TypeError):
        todo = "compare with the time on the server by hand"
        return warning("clock", "the server's answer carries no time", todo)
    seconds = round(difference.total_seconds())
    told = f"{abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'} the server's" if seconds else "as the server's"
    told += f" (tolerated: {AHEAD.seconds} s ahead, {BEHIND.seconds} s behind)"
    # The header counts whole seconds, downwards: up to one second of "ahead" is its own.
    if difference > AHEAD + timedelta(seconds=1) or -difference > BEHIND:
        return failed("clock", told, "set the clock, and keep it set: timedatectl set-ntp true")
    if abs(difference) > NOTED:
        return warning("clock", told, "keep the clock set: timedatectl set-ntp true")
    return ok("clock", told)


def _expiry(leaf: x509.Certificate, now: datetime) -> Check:
    about = certificates.facts(leaf)
    told = f"{about.subject}, until {about.not_after:%Y-%m-%d} ({about.days_left(now)} days)"
    if about.not_after - now < certificates.WARN_BEFORE:
        return warning("server's certificate", told, "tell the server's operator to renew it")
    return ok("server's certificate", told)


def _health(secured: ssl.SSLSocket, host: str, port: int, now: Callable[[], datetime]) -> list[Check]:
    connection = http.client.HTTPSConnection(host, port, timeout=_PATIENCE)
    connection.sock = secured
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        return [failed("health", f"no answer to /health ({type(error).__name__})", "is it qfed's server?")]
    health = (
        ok("health", "the server is up")
        if answer.status == 200
        else failed("health", f"the server answers with status {answer.status}", "see the server's log")
    )
    return [health, clock(answer.getheader("Date"), now())]
