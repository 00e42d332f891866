"""A small certificate authority of one's own, for the aggregator's one server.

    ca.crt   ECDSA P-384, 10 years, may sign servers and no further authority; optionally for some names only
    ca.key   its private key (0600), encrypted if there is a passphrase
    leaf     ECDSA P-256, 397 days, TLS server, its host names and addresses as subject alternative names

All of it is X.509 by `cryptography` (RFC 5280; 397 days are the CA/Browser Forum's limit). Sites trust this authority
for their one server only, so there are no revocation lists: a lost server key means a new authority and invitation.
Renewing keeps the key, hence certificates signed before stay good; a site needs no new file when the server renews.
Errors  ConfigError, in one line with the way out
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from qfed.errors import ConfigError
from qfed.federation import certificates
from qfed.federation.certificates import CERTIFICATE, KEY
from qfed.federation.files import write_atomically

CA, CA_KEY = certificates.CA, "ca.key"
CA_DAYS, DAYS = 3650, 397
_SKEW = timedelta(minutes=5)
"""A certificate is valid from a little before it was made, so that a clock that is slow does not refuse it."""


@dataclass(frozen=True)
class Authority:
    """The authority of a coordinator's folder, its key unlocked."""

    folder: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(
        cls, folder: Path, name: str, now: datetime, *, passphrase: str | None = None, permit: Sequence[str] = ()
    ) -> Authority:
        """Make ca.crt and ca.key; `permit` limits it to these domains (with all below) and networks."""
        for file in (CA, CA_KEY):
            if (folder / file).exists():
                raise ConfigError(f"{folder / file} exists already; renew its dates with --renew, or move it away")
        key = ec.generate_private_key(ec.SECP384R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "qfed"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"{name} CA"),
            ]
        )
        made = cls(folder, _self_signed(subject, key, now, _constraints(permit)), key)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / CA_KEY, _private(key, passphrase), secret=True)
        made._write()
        return made

    @classmethod
    def open(cls, folder: Path, passphrase: str | None = None) -> Authority:
        """Read it; ConfigError when the key is locked, open to others, or another's."""
        file = folder / CA_KEY
        certificate = certificates.read(folder / CA)[0]
        try:
            if file.stat().st_mode & 0o077:
                raise ConfigError(f"{file} can be read by others than its owner; chmod 600 {file}")
            key = load_pem_private_key(file.read_bytes(), passphrase.encode() if passphrase else None)
        except OSError as error:
            raise ConfigError(
                f"cannot read {file}: {error.strerror}; qfed federation ca FOLDER makes an authority"
            ) from (None)
        except (TypeError, ValueError):
            told = "the passphrase does not open it" if passphrase else "it needs its passphrase (QFED_CA_PASSPHRASE)"
            raise ConfigError(f"{file} cannot be opened: {told}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ConfigError(f"{file} is not the key of {folder / CA}; restore the two files of one authority")
        return cls(folder, certificate, key)

    @staticmethod
    def locked(folder: Path) -> bool:
        """Whether its key is encrypted."""
        file = folder / CA_KEY
        return file.exists() and b"ENCRYPTED" in file.read_bytes()

    def renewed(self, now: datetime) -> Authority:
        """The same name and key, with dates from now on."""
        kept = [e for e in self.certificate.extensions if isinstance(e.value, x509.NameConstraints)]
        constraints = kept[0].value if kept else None
        made = Authority(
            self.folder,
            _self_signed(self.certificate.subject, self.key, now, constraints),
            self.key,
        )
        made._write()
        return made

    def certify(
        self, out: Path, hosts: Sequence[str], now: datetime, *, new_key: bool = False, days: int = DAYS
    ) -> bool:
        """Write server.crt, server.key and ca.crt into `out`; whether that renewed one.

        A server.key that is there is kept unless `new_key`; without `hosts` those of the certificate that is there are
        taken.
        """
        file, before = out / KEY, out / CERTIFICATE
        renews = before.exists()
        names = tuple(hosts) or (certificates.hosts_of(certificates.read(before)[0]) if renews else ())
        if file.exists() and not new_key:
            try:
                key = load_pem_private_key(file.read_bytes(), None)
            except (TypeError, ValueError):
                raise ConfigError(f"{file} is no unencrypted PEM key; make a new one with --new-key") from None
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ConfigError(f"{file} is no key of an elliptic curve; make a new one with --new-key")
        else:
            key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._leaf(key.public_key(), names, now, days)
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(file, _private(key, None), secret=True)
        write_atomically(before, leaf.public_bytes(Encoding.PEM))
        write_atomically(out / CA, self.certificate.public_bytes(Encoding.PEM))
        return renews

    def sign_request(self, request: Path, out: Path, hosts: Sequence[str], now: datetime, *, days: int = DAYS) -> None:
        """Write server.crt and ca.crt into `out` for a signing request (PEM), whose key stays where it was made."""
        try:
            asked = x509.load_pem_x509_csr(request.read_bytes())
        except OSError as error:
            raise ConfigError(f"cannot read the signing request {request}: {error.strerror}") from None
        except ValueError:
            raise ConfigError(f"{request} is no signing request in PEM; make one with openssl req -new") from None
        key = asked.public_key()
        if not asked.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
            raise ConfigError(f"{request} must be signed with its own key, one of an elliptic curve; make it again")
        names = tuple(hosts) or _asked_hosts(asked)
        leaf = self._leaf(key, names, now, days)
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / CERTIFICATE, leaf.public_bytes(Encoding.PEM))
        write_atomically(out / CA, self.certificate.public_bytes(Encoding.PEM))

    def _leaf(self, key: ec.EllipticCurvePublicKey, hosts: Sequence[str], now: datetime, days: int) -> x509.Certificate:
        if not hosts:
            raise ConfigError("a certificate is for a host: name what sites connect to, e.g. fed.hospital.example")
        end = now + timedelta(days=days)
        if days < 1 or end > self.certificate.not_valid_after_utc:
            raise ConfigError(
                f"a certificate of days={days} must end after it begins and before its authority does on "
                f"{self.certificate.not_valid_after_utc:%Y-%m-%d}; renew that first: qfed federation ca FOLDER --renew"
            )
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])]))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - _SKEW, self.certificate.not_valid_before_utc))
            .not_valid_after(end)
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA384())
        )
        self._prove(leaf, hosts, now)
        return leaf

    def _prove(self, leaf: x509.Certificate, hosts: Sequence[str], now: datetime) -> None:
        """ConfigError for a host that sites would refuse: one that the authority is not permitted."""
        builder = PolicyBuilder().store(Store([self.certificate])).time(now.replace(tzinfo=None))
        for host in map(certificates.stood_for, hosts):
            subject = x509.IPAddress(ip_address(host)) if certificates.is_address(host) else x509.DNSName(host)
            try:
                builder.build_server_verifier(subject).verify(leaf, [])
            except VerificationError as error:
                raise ConfigError(
                    f"sites would refuse the certificate for host={host}: {error}; is it among what the authority was "
                    "made for (qfed federation ca --permit)?"
                ) from None

    def _write(self) -> None:
        write_atomically(self.folder / CA, self.certificate.public_bytes(Encoding.PEM))


def _self_signed(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, constraints: x509.NameConstraints | None
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(key, hashes.SHA384())


def _name(organization: str, common: str) -> x509.Name:
    pairs = ((NameOID.ORGANIZATION_NAME, organization), (NameOID.COMMON_NAME, common[:64]))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _constraints(permit: Sequence[str]) -> x509.NameConstraints | None:
    if not permit:
        return None
    trees: list[x509.GeneralName] = []
    for name in permit:
        try:
            trees.append(x509.IPAddress(ip_network(name)))
        except ValueError:
            trees.append(_general_name(name))
    return x509.NameConstraints(permitted_subtrees=trees, excluded_subtrees=None)


def _general_name(host: str) -> x509.GeneralName:
    if certificates.is_address(host):
        return x509.IPAddress(ip_address(host))
    labels = host.removeprefix("*.").split(".")
    if not all(label and label.isascii() and label.replace("-", "").isalnum() and label[0] != "-" for label in labels):
        raise ConfigError(f"host={host!r} is neither a DNS name nor an IP address; leave out scheme, port and slashes")
    return x509.DNSName(host)


def _asked_hosts(asked: x509.CertificateSigningRequest) -> tuple[str, ...]:
    try:
        names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*names.get_values_for_type(x509.DNSName), *(str(address) for address in addresses))


def _private(key: ec.EllipticCurvePrivateKey, passphrase: str | None) -> bytes:
    lock = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
