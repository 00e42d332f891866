"""qfed site and qfed federation: from keys at the sites to a signed file, and what is refused on the way."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qfed.cli.app import app
from qfed.config import load_config
from qfed.errors import ConfigError
from qfed.federation.contribution import policy_of
from qfed.secagg import Federation, Identity, PublicIdentity

FINGERPRINT = re.compile(r"[0-9a-f]{4}( [0-9a-f]{4}){9}")


def qfed(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: str | Path) -> str:
    """The one line that a mistake is told in."""
    with pytest.raises(ConfigError) as error:
        qfed(*arguments)
    told = str(error.value)
    assert "\n" not in told
    assert "Error(" not in told
    return told


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five sites with keys, and a federation of the first four."""
    place = tmp_path_factory.mktemp("federation")
    for name in "abcde":
        qfed("site", "keygen", f"site-{name}", "--out", place / name)
    qfed("federation", "init", "study", *(public(place, n) for n in "abcd"), "--out", place / "study")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "place"))


def public(place: Path, name: str) -> Path:
    return place / name / f"site-{name}.public.json"


def test_a_table_in_the_sites_folder_moves_with_it(place: Path) -> None:
    inside, outside = place / "a" / "tables" / "a.csv", place / "elsewhere.csv"
    inside.parent.mkdir()
    inside.write_text("x,y\n1,2\n")
    outside.write_text("x,y\n1,2\n")
    qfed("site", "init", place / "a", "--data", inside)
    qfed("site", "init", place / "b", "--data", outside)
    assert 'source = "tables/a.csv"' in (place / "a" / "site.toml").read_text()
    assert f'source = "{outside.resolve()}"' in (place / "b" / "site.toml").read_text()
    (place / "a").rename(place / "mounted")
    told = qfed("site", "check", "--site", place / "mounted")
    assert "mounted/tables/a.csv has the columns x" in told.replace("\n", "")


def contents(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_keys_stay_at_the_site_and_only_their_owner_may_read_them(place: Path) -> None:
    assert sorted(path.name for path in (place / "a").iterdir()) == ["identity.key", "site-a.public.json"]
    assert (place / "a" / "identity.key").stat().st_mode & 0o777 == 0o600
    assert (place / "study" / "coordinator.key").stat().st_mode & 0o777 == 0o600
    secrets = [
        value
        for file in [*(place / n / "identity.key" for n in "abcde"), place / "study" / "coordinator.key"]
        for key, value in json.loads(file.read_text()).items()
        if key.endswith("_secret")
    ]
    assert len(secrets) == 5 * 3 + 2  # the coordinator connects to nothing
    for path, content in contents(place).items():
        if not path.endswith(".key"):
            assert not any(secret.encode() in content for secret in secrets), path


def test_every_side_reads_the_same_fingerprint(place: Path) -> None:
    mine = qfed("site", "fingerprint", place / "a")
    assert FINGERPRINT.search(mine)
    assert qfed("site", "fingerprint", public(place, "a")) == mine
    shown = qfed("federation", "show", place / "study")
    assert " ".join(mine.split()) in " ".join(shown.split())
    told = qfed("site", "keygen", "site-f", "--out", place / "f")
    assert told.splitlines()[0] == qfed("site", "fingerprint", place / "f").strip()


def test_show_tells_what_is_pinned(place: Path) -> None:
    federation = Federation.load(place / "study" / "federation.json")
    data = json.loads(qfed("federation", "show", place / "study" / "federation.json", "--json"))
    assert data["digest"] == federation.digest.hex()
    assert data["policy"] == federation.policy.to_dict()
    assert [site["name"] for site in data["sites"]] == ["site-a", "site-b", "site-c", "site-d"]
    assert data["sites"][1]["fingerprint"] == Identity.load(place / "b" / "identity.key").fingerprint()
    shown = qfed("federation", "show", place / "study")
    assert "federation study, version 1: 4 sites" in shown
    assert federation.digest.hex() in shown.replace(" ", "")
    for term, value in federation.policy.to_dict().items():
        assert term == "federation_id" or re.search(rf"{term} +{re.escape(str(value))} ", shown), term
    assert "at most 2 sites collude" in shown
    pin = data["coordinator"]["fingerprint"]
    assert qfed("federation", "show", place / "study", "--coordinator", pin) == shown


def test_the_policy_is_the_one_that_a_run_of_the_same_settings_asks_for(place: Path) -> None:
    changes = ["secagg.update_clip=2.0", "federation.weighting=uniform", "federation.quorum=0.7"]
    options = [part for change in changes for part in ("--set", change)]
    qfed("federation", "init", "other", *(public(place, n) for n in "abcde"), *options, "--out", place / "other")
    policy = Federation.load(place / "other" / "federation.json").policy
    assert policy == policy_of(load_config(None, [*changes, "federation.sites=5"]), "other")
    assert policy == policy_of(load_config(place / "other" / "terms.toml"), "other")
    assert policy.clip == 2.0


def test_groups_are_pinned(place: Path) -> None:
    for name in "fg":
        qfed("site", "keygen", f"site-{name}", "--out", place / name)
    changes = ("federation.groups=2", "federation.strategy=median", "federation.byzantine=0", "privacy.mode=local")
    options = [part for change in changes for part in ("--set", change)]
    files = [public(place, n) for n in "abcdefg"]
    told = qfed("federation", "init", "grouped", *files, *options, "--out", place / "grouped")
    assert "7 sites, 2 groups" in told
    assert "at most 1 site of one group collude" in told
    policy = Federation.load(place / "grouped" / "federation.json").policy
    assert (policy.groups, policy.committee_size, policy.min_survivors) == (2, 3, 3)
    assert policy == policy_of(load_config(place / "grouped" / "terms.toml"), "grouped")


def test_adding_and_revoking_make_a_new_version_with_a_new_digest(place: Path) -> None:
    study = place / "study"
    first = Federation.load(study / "federation.json")
    assert "version 2: 5 sites" in qfed("federation", "add", study, public(place, "e"))
    second = Federation.load(study / "federation.json", first.coordinator.fingerprint())
    assert (second.version, list(second.index)) == (2, [f"site-{n}" for n in "abcde"])
    assert second.policy.committee_size == 5
    assert load_config(study / "terms.toml").federation.sites == 5
    assert "version 3: 4 sites" in qfed("federation", "revoke", study, "site-a")
    third = Federation.load(study / "federation.json")
    assert list(third.index) == [f"site-{n}" for n in "bcde"]
    assert third.policy == first.policy
    assert len({first.digest, second.digest, third.digest}) == 3
    assert "version 4: 4 sites" in qfed("federation", "add", study, public(place, "a"), "--revoke", "site-b")
    terms = qfed("federation", "revoke", study, "site-e", "--set", "secagg.update_clip=1.0")
    assert "version 5: 3 sites" in terms
    assert Federation.load(study / "federation.json").policy.clip == 1.0
    qfed("federation", "add", study, public(place, "b"))
    assert Federation.load(study / "federation.json").policy.clip == 1.0, "terms that were changed stay changed"


def test_a_site_gets_new_keys_in_one_step(place: Path) -> None:
    qfed("site", "keygen", "site-a", "--out", place / "new")
    new = place / "new" / "site-a.public.json"
    assert "--revoke site-a" in refused("federation", "add", place / "study", new)
    qfed("federation", "add", place / "study", new, "--revoke", "site-a")
    federation = Federation.load(place / "study" / "federation.json")
    assert federation.site("site-a") == PublicIdentity.load(new)
    assert len(federation.roster) == 4


def test_a_lost_public_file_is_written_again(place: Path) -> None:
    qfed("site", "export", place / "a", place / "again.json")
    assert (place / "again.json").read_bytes() == public(place, "a").read_bytes()
    assert "never overwritten" in refused("site", "export", place / "a", place / "again.json")


MISTAKES: list[tuple[list[str], str]] = [
    (["site", "keygen", "site-a", "--out", "a"], "keys are never overwritten"),
    (["site", "keygen", "a b", "--out", "new"], "name='a b'"),
    (["site", "fingerprint", "nowhere"], "no identity can be read"),
    (["federation", "init", "x", "a/site-a.public.json", "b/site-b.public.json"], "at least 3 sites"),
    (["federation", "init", "st udy", *(f"{n}/site-{n}.public.json" for n in "abc")], "federation_id='st udy'"),
    (
        ["federation", "init", "study", *(f"{n}/site-{n}.public.json" for n in "abc"), "--out", "study"],
        "exists already; name another folder",
    ),
    (["federation", "init", "x", "a/identity.key", *(f"{n}/site-{n}.public.json" for n in "bc")], "PRIVATE keys"),
    (["federation", "init", "x", *(f"{n}/site-{n}.public.json" for n in "aab")], "each site once"),
    (["federation", "init", "x", *(f"{n}/site-{n}.public.json" for n in "abc"), "--set", "secagg.bit=9"], "secagg.bit"),
    (
        ["federation", "init", "x", *(f"{n}/site-{n}.public.json" for n in "abc"), "--set", "federation.strategy=krum"],
        "set federation.groups",
    ),
    (["federation", "add", "study", "nowhere.json"], "no public identity can be read"),
    (["federation", "add", "study", "study/federation.json"], "not a public identity"),
    (["federation", "add", "study", "a/site-a.public.json"], "in the federation already"),
    (["federation", "add", "nowhere", "e/site-e.public.json"], "ask the coordinator for it"),
    (["federation", "revoke", "study", "nobody"], "only sites of the roster can be revoked, got nobody"),
    (["federation", "revoke", "study", "site-a", "site-b"], "at least 3 sites"),
    (["federation", "show", "a/site-a.public.json"], "a federation file of format"),
    (["federation", "show", "study", "--coordinator", "0000 0000"], "this site trusts the coordinator 0000 0000"),
]


@pytest.mark.parametrize(("arguments", "told"), MISTAKES, ids=[" ".join(a[:3]) for a, _ in MISTAKES])
def test_a_mistake_is_one_line_and_changes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(place)
    before = contents(place)
    assert told in refused(*arguments)
    assert contents(place) == before


def changed(file: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["policy"].update(min_survivors=3),
        lambda v: v["policy"].update(groups=2),
        lambda v: v["policy"].update(committee_size=4, recoverable_drops=0, clip=8.0),
        lambda v: v.update(version=9),
        lambda v: v["roster"].pop(),
        lambda v: v["roster"].append(Identity.generate("site-zz").public.to_dict()),
        lambda v: v["roster"][0].update(Identity.generate("site-a").public.to_dict()),
        lambda v: v.update(coordinator=Identity.generate("coordinator").public.to_dict()),
        lambda v: v.update(signature=v["signature"][:88]),
    ],
)
def test_a_federation_file_that_was_changed_is_refused(place: Path, change: Callable[[Any], object]) -> None:
    """Whoever carries the file, the aggregator too, can neither add a site nor swap a key nor change the policy."""
    file = place / "study" / "federation.json"
    changed(file, change)
    for arguments in (["show", file], ["add", file.parent, public(place, "e")], ["revoke", file.parent, "site-b"]):
        told = refused("federation", *arguments)
        assert re.search(r"\[(signature-bad|signature-stripped|policy-invalid)\]$", told), told


def test_another_coordinators_file_does_not_pass_for_the_pinned_ones(place: Path) -> None:
    """All of it can be signed anew by somebody else; only the fingerprint that was compared tells."""
    pin = Federation.load(place / "study" / "federation.json").coordinator.fingerprint()
    qfed("federation", "init", "study", *(public(place, n) for n in "abcd"), "--out", place / "mallory")
    assert "[coordinator-unknown]" in refused("federation", "show", place / "mallory", "--coordinator", pin)
    shutil.copy(place / "mallory" / "coordinator.key", place / "study" / "coordinator.key")
    assert "[coordinator-unknown]" in refused("federation", "add", place / "study", public(place, "e"))


@pytest.mark.parametrize("field", ["name", "ed25519", "mldsa65", "fingerprint"])
def test_a_public_file_that_was_changed_is_refused(place: Path, field: str) -> None:
    other = json.loads(public(place, "d").read_text())
    changed(public(place, "e"), lambda v: v.update({field: other[field]}))
    assert "was changed on its way" in refused("federation", "add", place / "study", public(place, "e"))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_may_read_is_refused(place: Path, mode: int) -> None:
    (place / "a" / "identity.key").chmod(mode)
    assert "chmod 600" in refused("site", "fingerprint", place / "a")
    (place / "study" / "coordinator.key").chmod(mode)
    before = contents(place)
    assert "chmod 600" in refused("federation", "add", place / "study", public(place, "e"))
    assert contents(place) == before


def test_the_command_itself(tmp_path: Path) -> None:
    """As a process: keys, federation, and a mistake that is one line on stderr and status 2."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = "from qfed.cli.app import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, cwd=tmp_path
        )

    for name in ("a", "b", "c"):
        assert run("site", "keygen", name, "--out", name).returncode == 0
    files = [f"{name}/{name}.public.json" for name in ("a", "b", "c")]
    done = run("federation", "init", "study", *files)
    assert (done.returncode, done.stderr) == (0, "")
    assert run("federation", "show", "study").stdout.startswith("federation study, version 1: 3 sites\n")
    again = run("federation", "init", "study", *files)
    assert again.returncode == 2
    assert again.stderr.startswith("error: study/federation.json exists already")
    assert again.stderr.count("\n") == 1
