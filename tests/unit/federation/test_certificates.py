"""The authority of one's own and the judgement of certificates: what a site would accept, and what it would refuse."""

from __future__ import annotations

import os
import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from qfed.errors import ConfigError
from qfed.federation import certificates
from qfed.federation.authority import CA_KEY, Authority

NOW = datetime.now(UTC).replace(microsecond=0)
PHRASE = "correct horse"
HOSTS = ("fed.hospital.example", "127.0.0.1", "::1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    Authority.create(folder, "study", NOW).certify(folder / "tls", HOSTS, NOW)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "study"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_certificate_is_accepted_for_its_hosts_and_for_no_other(folder: Path) -> None:
    assert certificates.check(folder / "tls", HOSTS, NOW) == ()
    with pytest.raises(ConfigError, match=r"connects to evil\.example would refuse.*mismatch.*fed\.hospital\.example"):
        certificates.check(folder / "tls", ["evil.example"], NOW)
    with pytest.raises(ConfigError, match=r"connects to 127\.0\.0\.2 would refuse"):
        certificates.check(folder / "tls", ["127.0.0.2"], NOW)


def test_private_keys_are_their_owners_alone(folder: Path) -> None:
    assert mode(folder / CA_KEY) == mode(folder / "tls" / "server.key") == 0o600
    os.chmod(folder / CA_KEY, 0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        Authority.open(folder)


def test_what_the_certificates_say(folder: Path) -> None:
    leaf, ca = (certificates.read(folder / "tls" / name)[0] for name in ("server.crt", "ca.crt"))
    about = certificates.facts(leaf)
    assert about.hosts == ("fed.hospital.example", "127.0.0.1", "::1")
    assert about.days_left(NOW) == 397
    assert certificates.facts(ca).days_left(NOW) == 3650
    assert about.fingerprint.replace(" ", "") == leaf.fingerprint(hashes.SHA256()).hex()
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    basic = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert (folder / "ca.crt").read_bytes() == (folder / "tls" / "ca.crt").read_bytes()


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("https://fed.example", "leave out scheme, port and slashes"),
        ("fed.example:9443", "leave out scheme"),
        ("-a.example", "neither a DNS name"),
        ("", "neither a DNS name"),
        ("ä.example", "neither a DNS name"),
    ],
)
def test_hosts_are_names_or_addresses(folder: Path, host: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Authority.open(folder).certify(folder / "other", [host], NOW)
    assert not (folder / "other").exists()


def test_a_wildcard_stands_for_what_it_covers(folder: Path) -> None:
    Authority.open(folder).certify(folder / "other", ["*.hospital.example"], NOW)
    assert certificates.check(folder / "other", [], NOW) == ()
    assert certificates.check(folder / "other", ["a.hospital.example"], NOW) == ()
    with pytest.raises(ConfigError, match="would refuse"):
        certificates.check(folder / "other", ["hospital.example"], NOW)


def test_renewing_keeps_key_and_hosts_and_a_new_key_is_one(folder: Path) -> None:
    authority, tls = Authority.open(folder), folder / "tls"
    key, before = (tls / "server.key").read_bytes(), (tls / "server.crt").read_bytes()
    assert authority.certify(tls, [], NOW) is True
    assert (tls / "server.key").read_bytes() == key
    assert (tls / "server.crt").read_bytes() != before
    assert certificates.check(tls, HOSTS, NOW) == ()
    authority.certify(tls, [], NOW, new_key=True)
    assert (tls / "server.key").read_bytes() != key
    assert certificates.check(tls, HOSTS, NOW) == ()
    assert authority.certify(folder / "new", ["a.example"], NOW) is False
    with pytest.raises(ConfigError, match="name what sites connect to"):
        authority.certify(folder / "newer", [], NOW)


def test_a_renewed_authority_vouches_for_certificates_of_before_and_the_other_way_round(folder: Path) -> None:
    old = (folder / "ca.crt").read_bytes()
    renewed = Authority.open(folder).renewed(NOW + timedelta(minutes=1))
    assert (folder / "ca.crt").read_bytes() != old
    shutil.copy(folder / "ca.crt", folder / "tls" / "ca.crt")
    assert certificates.check(folder / "tls", HOSTS, NOW) == ()
    renewed.certify(folder / "tls", [], NOW)
    (folder / "tls" / "ca.crt").write_bytes(old)  # a site that still has the file of before
    assert certificates.check(folder / "tls", HOSTS, NOW) == ()


def test_an_authority_is_never_overwritten_and_its_key_must_be_its_own(folder: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        Authority.create(folder, "study", NOW)
    Authority.create(folder / "other", "other", NOW)
    shutil.copy(folder / "other" / CA_KEY, folder / CA_KEY)
    with pytest.raises(ConfigError, match="is not the key of"):
        Authority.open(folder)
    with pytest.raises(ConfigError, match="qfed federation"):
        Authority.open(folder / "nothing")


def test_a_passphrase_locks_the_authority(tmp_path: Path) -> None:
    Authority.create(tmp_path, "study", NOW, passphrase=PHRASE)
    assert Authority.locked(tmp_path)
    assert Authority.open(tmp_path, PHRASE).folder == tmp_path
    for wrong, told in ((None, "needs its passphrase"), ("wrong", "does not open it")):
        with pytest.raises(ConfigError, match=told) as error:
            Authority.open(tmp_path, wrong)
        assert "horse" not in str(error.value)


def test_an_authority_limited_to_names_certifies_no_other_(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path, "study", NOW, permit=["hospital.example", "10.1.0.0/16"])
    authority.certify(tmp_path / "tls", ["fed.hospital.example", "10.1.2.3"], NOW)
    assert certificates.check(tmp_path / "tls", ["fed.hospital.example", "10.1.2.3"], NOW) == ()
    for host in ("fed.other.example", "10.2.0.1"):
        with pytest.raises(ConfigError, match="--permit"):
            authority.certify(tmp_path / "bad", [host], NOW)
    assert not (tmp_path / "bad").exists()
    renewed = authority.renewed(NOW)
    with pytest.raises(ConfigError, match="--permit"):
        renewed.certify(tmp_path / "bad", ["fed.other.example"], NOW)


@pytest.mark.parametrize(
    ("days", "told"),
    [(29, "expires in 28 days"), (398, None), (0, "must end after it begins"), (3651, "renew that first")],
)
def test_expiry_is_foretold(folder: Path, days: int, told: str | None) -> None:
    authority = Authority.open(folder)
    if told is not None and "expires" not in told:
        with pytest.raises(ConfigError, match=told):
            authority.certify(folder / "tls", [], NOW, days=days)
        return
    authority.certify(folder / "tls", [], NOW, days=days)
    warnings = certificates.check(folder / "tls", HOSTS, NOW + timedelta(hours=1))
    assert [told in warning for warning in warnings if told] == ([True] if told else [])


def test_an_expired_certificate_one_of_tomorrow_and_an_ageing_authority_are_told(folder: Path) -> None:
    server, ca = folder / "tls" / "server.crt", folder / "ca.crt"
    with pytest.raises(ConfigError, match=r"expired on .* UTC; renew it: qfed federation certify"):
        certificates.expiry(server, NOW + timedelta(days=398))
    with pytest.raises(ConfigError, match="set the clock"):
        certificates.expiry(server, NOW - timedelta(days=1))
    warning = certificates.expiry(ca, NOW + timedelta(days=3400), authority=True)
    assert warning is not None
    assert "qfed federation ca FOLDER --renew" in warning


def test_openssl_refuses_an_expired_certificate_too(folder: Path) -> None:
    authority = Authority.create(folder / "old", "study", NOW - timedelta(days=30))
    authority.certify(folder / "old" / "tls", ["a.example"], NOW - timedelta(days=20), days=10)
    tls = folder / "old" / "tls"
    with pytest.raises(ConfigError, match="expired"):
        certificates.prove(tls / "server.crt", tls / "server.key", tls / "ca.crt", "a.example")


def test_another_authority_another_key_and_rubbish_are_told_apart(folder: Path) -> None:
    other = Authority.create(folder / "other", "other", NOW)
    other.certify(folder / "other" / "tls", HOSTS, NOW)
    tls = folder / "tls"
    shutil.copy(folder / "other" / "ca.crt", tls / "ca.crt")
    with pytest.raises(ConfigError, match="local issuer"):
        certificates.check(tls, HOSTS, NOW)
    shutil.copy(folder / "other" / "tls" / "server.key", tls / "server.key")
    with pytest.raises(ConfigError, match="does not belong to the certificate"):
        certificates.check(tls, HOSTS, NOW)
    (tls / "server.key").write_text("rubbish")
    with pytest.raises(ConfigError, match="cannot be used"):
        certificates.check(tls, HOSTS, NOW)
    (tls / "server.key").unlink()
    with pytest.raises(ConfigError, match="belong together"):
        certificates.check(tls, HOSTS, NOW)
    (tls / "server.crt").write_text("rubbish")
    with pytest.raises(ConfigError, match="no certificate in PEM"):
        certificates.check(tls, HOSTS, NOW)
    (tls / "server.crt").unlink()
    with pytest.raises(ConfigError, match="cannot read the certificate"):
        certificates.check(tls, HOSTS, NOW)


def test_an_encrypted_key_is_refused_and_not_asked_about(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path, "study", NOW, passphrase=PHRASE)
    authority.certify(tmp_path / "tls", ["a.example"], NOW)
    shutil.copy(tmp_path / CA_KEY, tmp_path / "tls" / "server.key")
    with pytest.raises(ConfigError, match="encrypted"):
        certificates.check(tmp_path / "tls", [], NOW)


def test_an_operators_own_chain_with_an_intermediate_is_accepted(tmp_path: Path) -> None:
    """Root -> intermediate -> server, as a hospital's own authority issues them."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("Root", "Intermediate", "server")]
    chain = []
    for place, (key, name) in enumerate(zip(keys, names, strict=True)):
        signer = max(place - 1, 0)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(names[signer]).public_key(key.public_key())
        builder = builder.serial_number(place + 1).not_valid_before(NOW - timedelta(hours=1))
        builder = builder.not_valid_after(NOW + timedelta(days=90 if place == 2 else 800))
        builder = builder.add_extension(x509.BasicConstraints(place < 2, None), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[signer].public_key())
        builder = builder.add_extension(issuer, critical=False)
        if place == 2:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example")]), critical=False)
        else:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        chain.append(builder.sign(keys[signer], hashes.SHA256()).public_bytes(Encoding.PEM))
    (tmp_path / "ca.crt").write_bytes(chain[0])
    (tmp_path / "server.key").write_bytes(keys[2].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "server.crt").write_bytes(chain[2] + chain[1])
    assert certificates.check(tmp_path, ["a.example"], NOW) == ()
    (tmp_path / "server.crt").write_bytes(chain[2])
    with pytest.raises(ConfigError, match="local issuer"):
        certificates.check(tmp_path, ["a.example"], NOW)


def test_a_certificate_without_host_names_is_refused(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path, "study", NOW)
    authority.certify(tmp_path / "tls", ["a.example"], NOW)
    shutil.copy(tmp_path / "ca.crt", tmp_path / "tls" / "server.crt")
    with pytest.raises(ConfigError, match="names no host"):
        certificates.check(tmp_path / "tls", [], NOW)


def test_a_signing_request_is_signed_and_its_key_never_seen(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fed")]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("fed.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "server.csr").write_bytes(request.public_bytes(Encoding.PEM))
    authority = Authority.open(folder)
    authority.sign_request(folder / "server.csr", folder / "out", [], NOW)
    leaf = certificates.read(folder / "out" / "server.crt")[0]
    assert leaf.public_key() == key.public_key()
    assert certificates.hosts_of(leaf) == ("fed.example",)
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["ca.crt", "server.crt"]
    (folder / "server.csr").write_text("rubbish")
    with pytest.raises(ConfigError, match="no signing request"):
        authority.sign_request(folder / "server.csr", folder / "out", [], NOW)
    with pytest.raises(ConfigError, match="cannot read the signing request"):
        authority.sign_request(folder / "none.csr", folder / "out", [], NOW)
