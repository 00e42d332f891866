"""The walk of enrolment: one command at the coordinator, one file to every site, one command there."""

from __future__ import annotations

import json
import shutil
import stat
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qfed.cli.app import app
from qfed.config import load_site
from qfed.errors import ConfigError
from qfed.federation import certificates
from qfed.federation.invitation import Invitation, fingerprint_of, host_and_port
from qfed.secagg import Federation

SERVER = "fed.hospital.example:9443"
PHRASE = "correct horse"


def qfed(*arguments: str | Path, typed: str | None = None) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False, input=typed)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: str | Path) -> str:
    with pytest.raises(ConfigError) as error:
        qfed(*arguments)
    told = str(error.value)
    assert "\n" not in told
    return told


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("enrolment")
    for name in "abcd":
        qfed("site", "keygen", name, "--out", place / name)
    publics = [place / n / f"{n}.public.json" for n in "abc"]
    qfed("federation", "init", "study", *publics, "--server", SERVER, "--host", "10.0.0.7", "--out", place / "study")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "place"))


def pin(place: Path) -> str:
    return Federation.load(place / "study" / "federation.json").coordinator.fingerprint()


def join(place: Path, name: str, *more: str) -> str:
    return qfed(
        *(
            "site",
            "join",
            place / "study" / "invitation.json",
            "--site",
            place / name,
            "--coordinator",
            pin(place),
            *more,
        )
    )


def test_one_command_makes_all_that_is_handed_out(place: Path) -> None:
    files = sorted(str(path.relative_to(place / "study")) for path in (place / "study").rglob("*") if path.is_file())
    assert files == [
        "aggregator/federation.json",
        "aggregator/server.toml",
        "aggregator/tls/ca.crt",
        "aggregator/tls/server.crt",
        "aggregator/tls/server.key",
        "ca.crt",
        "ca.key",
        "coordinator.key",
        "federation.json",
        "invitation.json",
        "terms.toml",
    ]
    private = [path for path in (place / "study").rglob("*.key") if stat.S_IMODE(path.stat().st_mode) != 0o600]
    assert private == []
    tls = place / "study" / "aggregator" / "tls"
    assert certificates.hosts_of(certificates.read(tls / "server.crt")[0]) == ("fed.hospital.example", "10.0.0.7")
    text = (place / "study" / "invitation.json").read_text()
    for key in (place / "study").rglob("*.key"):
        secret = key.read_text()
        lines = json.loads(secret).values() if secret.startswith("{") else secret.splitlines()[1:-1]
        assert not any(line in text for line in lines if len(line) > 20), key


def test_a_site_joins_with_the_fingerprint_as_people_type_it(place: Path) -> None:
    typed = pin(place).upper().replace(" ", "-")
    told = qfed(
        *("site", "join", place / "study" / "invitation.json", "--site", place / "a", "--coordinator", typed),
    )
    assert "joined study, version 1: 3 sites, server fed.hospital.example:9443" in told
    assert "first draft" in told
    site = load_site(place / "a" / "site.toml")
    assert (site.name, site.dataset, site.coordinator) == ("a", "a", pin(place))
    assert site.server is not None
    assert (site.server.address, site.server.ca) == (SERVER, "ca.crt")
    assert (place / "a" / "ca.crt").read_bytes() == (place / "study" / "ca.crt").read_bytes()
    assert (place / "a" / "federation.json").read_bytes() == (place / "study" / "federation.json").read_bytes()
    joined = {path.name for path in (place / "a").iterdir()}
    assert joined == {"a.public.json", "ca.crt", "federation.json", "identity.key", "site.toml"}


def test_what_a_site_wrote_itself_stays(place: Path) -> None:
    own = '# ours\nname = "a"\ndataset = "ward-7"  # the ledger\'s\n\n[policy]\nepsilon = 0.5 # tight\ndelta = 1e-6\n'
    (place / "a" / "site.toml").write_text(own)
    assert "first draft" not in join(place, "a")
    text = (place / "a" / "site.toml").read_text()
    for kept in ("# ours", "# the ledger's", "epsilon = 0.5 # tight", 'dataset = "ward-7"'):
        assert kept in text
    site = load_site(place / "a" / "site.toml")
    assert (site.policy.epsilon, site.coordinator) == (0.5, pin(place))
    assert site.server is not None
    before = text
    join(place, "a")
    assert (place / "a" / "site.toml").read_text() == before


def test_the_fingerprint_is_insisted_on(place: Path) -> None:
    invitation = place / "study" / "invitation.json"
    base = ("site", "join", invitation, "--site", place / "a")
    assert "--coordinator" in refused(*base)
    assert "ask the coordinator over another channel" in refused(*base, "--coordinator", "0" * 40)
    assert "ten groups of four" in refused(*base, "--coordinator", "cf8e 527a")
    assert not (place / "a" / "site.toml").exists()


@pytest.mark.parametrize("field", ["server", "ca", "federation", "signature", "format"])
def test_whatever_is_changed_on_the_way_is_noticed(place: Path, field: str) -> None:
    invitation = place / "study" / "invitation.json"
    value = json.loads(invitation.read_text())
    other = place / "other.json"
    change = {
        "server": "evil.example:9443",
        "ca": [*value["ca"], *value["ca"]],
        "federation": value["federation"] | {"version": 2},
        "signature": value["signature"][4:] + value["signature"][:4],
        "format": "qfed-invitation-0",
    }
    other.write_text(json.dumps(value | {field: change[field]}))
    told = refused("site", "join", other, "--site", place / "a", "--coordinator", pin(place))
    assert "must not be used" in told or "no invitation" in told
    assert not (place / "a" / "federation.json").exists()


def test_rubbish_is_no_invitation(place: Path) -> None:
    for content in ("", "[]", "{}", (place / "study" / "federation.json").read_text()):
        (place / "x.json").write_text(content)
        assert "no invitation" in refused("site", "join", place / "x.json", "--coordinator", "0" * 40)
    assert "cannot read" in refused("site", "join", place / "none.json", "--coordinator", "0" * 40)


def test_a_site_that_is_not_in_the_roster_or_has_other_keys_is_told_what_to_send(place: Path) -> None:
    base = ("site", "join", place / "study" / "invitation.json", "--coordinator", pin(place), "--site")
    assert "d is not in version 1 of study; send d.public.json" in refused(*base, place / "d")
    qfed("site", "keygen", "a", "--out", place / "again")
    assert "a is with other keys in version 1" in refused(*base, place / "again")
    (place / "empty").mkdir()
    assert "identity" in refused(*base, place / "empty")


def test_a_change_of_the_roster_reaches_aggregator_and_invitation(place: Path) -> None:
    join(place, "a")
    shutil.copy(place / "study" / "invitation.json", place / "old.json")
    told = qfed("federation", "add", place / "study", place / "d" / "d.public.json")
    assert "invitation.json" in told
    for name in "ad":
        join(place, name)
        assert Federation.load(place / name / "federation.json").version == 2
    copy = place / "study" / "aggregator" / "federation.json"
    assert copy.read_bytes() == (place / "study" / "federation.json").read_bytes()
    told = refused("site", "join", place / "old.json", "--site", place / "a", "--coordinator", pin(place))
    assert "of version 1" in told
    assert "of version 2" in told


def test_another_coordinators_invitation_does_not_replace_the_pin(place: Path) -> None:
    join(place, "a")
    publics = [place / n / f"{n}.public.json" for n in "abc"]
    qfed("federation", "init", "study", *publics, "--server", SERVER, "--out", place / "evil")
    theirs = Federation.load(place / "evil" / "federation.json").coordinator.fingerprint()
    told = refused("site", "join", place / "evil" / "invitation.json", "--site", place / "a", "--coordinator", theirs)
    assert "trusts the coordinator" in told
    assert load_site(place / "a" / "site.toml").coordinator == pin(place)


def test_certificates_are_renewed_and_the_invitation_follows_a_renewed_authority(place: Path) -> None:
    study = place / "study"
    assert qfed("federation", "certify", study).startswith("renewed")
    assert "issued" in qfed("federation", "certify", study, "a.example", "--out", place / "tls")
    before = (study / "ca.crt").read_text()
    time.sleep(1.1)  # certificates count in seconds
    qfed("federation", "ca", study, "--renew")
    assert (study / "ca.crt").read_text() != before
    assert Invitation.load(study / "invitation.json").ca == (study / "ca.crt").read_text()
    qfed("federation", "init", "own", *(place / n / f"{n}.public.json" for n in "abc"), "--out", place / "own")
    assert "qfed federation" in refused("federation", "invite", place / "own", "--server", SERVER)
    qfed("federation", "invite", place / "own", "--server", SERVER, "--ca", study / "ca.crt")
    assert Invitation.load(place / "own" / "invitation.json").ca == (study / "ca.crt").read_text()
    assert "host:port" in refused("federation", "invite", place / "own", "--server", "fed", "--ca", study / "ca.crt")


def test_an_encrypted_authority_takes_its_passphrase_from_the_environment(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publics = [place / n / f"{n}.public.json" for n in "abc"]
    base = ("federation", "init", "locked", *publics, "--server", SERVER, "--passphrase", "--out")
    qfed(*base, place / "typed", typed=f"{PHRASE}\n{PHRASE}\n")
    assert "ENCRYPTED" in (place / "typed" / "ca.key").read_text()
    assert "passphrase" in refused("federation", "certify", place / "typed")
    monkeypatch.setenv("QFED_CA_PASSPHRASE", PHRASE)
    assert qfed("federation", "certify", place / "typed").startswith("renewed")
    qfed(*base, place / "taken")
    monkeypatch.delenv("QFED_CA_PASSPHRASE")
    assert "passphrase" in refused("federation", "certify", place / "taken")


def test_options_of_a_certificate_without_a_server_are_refused(place: Path) -> None:
    publics = [place / n / f"{n}.public.json" for n in "abc"]
    assert "--server" in refused("federation", "init", "x", *publics, "--host", "a.example", "--out", place / "x")
    told = refused("federation", "init", "x", *publics, "--server", "https://fed", "--out", place / "x")
    assert "host:port" in told
    assert not (place / "x").exists()


@pytest.mark.parametrize(
    ("server", "parts"),
    [("a.example:1", ("a.example", 1)), ("10.0.0.1:65535", ("10.0.0.1", 65535)), ("[::1]:9443", ("::1", 9443))],
)
def test_addresses(server: str, parts: tuple[str, int]) -> None:
    assert host_and_port(server) == parts


@pytest.mark.parametrize("server", ["", "a", "a:0", "a:65536", "http://a:1", "a:b", "::1:9443", "a b:1"])
def test_what_is_no_address(server: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        host_and_port(server)


def test_fingerprints_have_one_form() -> None:
    one = "cf8e 527a 1182 f6a3 0939 4c6e fcaf 0286 96f5 e143"
    assert fingerprint_of(one) == fingerprint_of(one.replace(" ", "")) == fingerprint_of(f" {one.upper()}\n") == one
    for wrong in ("", one[:-1], one + "0", one.replace("c", "g")):
        with pytest.raises(ConfigError, match="ten groups"):
            fingerprint_of(wrong)
