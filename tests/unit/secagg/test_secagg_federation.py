"""Identities, the policy and the federation file: what is pinned cannot be changed by whoever carries it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from secagg_lab import identity, make_federation, names

from qfed import collusion
from qfed.errors import LocalProtocolError
from qfed.secagg import Federation, Identity, Policy, PublicIdentity, Reason, SecAggMisuse, SecAggRefused


def refused(call: Callable[[], object]) -> Reason:
    with pytest.raises((SecAggMisuse, SecAggRefused)) as refusal:
        call()
    return refusal.value.reason


def test_an_identity_is_saved_for_its_owner_only_and_loads_again(tmp_path: Path) -> None:
    path = tmp_path / "id.json"
    mine = Identity.generate("clinic-a")
    mine.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    again = Identity.load(path)
    assert again.public == mine.public
    assert again.fingerprint() == mine.fingerprint()
    again.public.verify(mine.sign(b"m"), b"m")
    assert mine.key.ed25519.hex() not in repr(mine)
    assert repr(mine.key.mldsa65) not in repr(mine)
    assert refused(lambda: mine.save(path)) is Reason.IDENTITY_INVALID
    path.chmod(0o644)
    assert refused(lambda: Identity.load(path)) is Reason.IDENTITY_INVALID


def test_a_node_key_is_on_p384_saved_with_the_identity_and_covered_by_its_fingerprint(tmp_path: Path) -> None:
    mine = Identity.generate("clinic-a", node=True)
    mine.save(tmp_path / "id.json")
    mine.public.save(tmp_path / "public.json")
    again, public = Identity.load(tmp_path / "id.json"), PublicIdentity.load(tmp_path / "public.json")
    assert again.public == public == mine.public
    assert public.node_key().curve.name == "secp384r1"
    assert again.node_key().public_key() == public.node_key()
    assert mine.node is not None
    assert mine.node.secret.hex() not in repr(mine)
    assert str(mine.node.secret) not in repr(mine)
    value = json.loads((tmp_path / "public.json").read_text())
    value["node"] = Identity.generate("x", node=True).public.to_dict()["node"]
    (tmp_path / "public.json").write_text(json.dumps(value))
    with pytest.raises(SecAggMisuse, match="it was changed on its way"):
        PublicIdentity.load(tmp_path / "public.json")


def test_an_identity_without_a_node_key_loads_and_says_how_to_get_one(tmp_path: Path) -> None:
    """Files made before there were node keys, and those of simulations."""
    mine = Identity.generate("clinic-a")
    mine.save(tmp_path / "id.json")
    assert "node" not in (tmp_path / "id.json").read_text()
    for half in (Identity.load(tmp_path / "id.json"), PublicIdentity.from_dict(mine.public.to_dict())):
        with pytest.raises(SecAggMisuse, match=r"no node key.*qfed site keygen.*--revoke clinic-a"):
            half.node_key()


@pytest.mark.parametrize("secret", ["AAAA", "!", 7, "//" * 32])
def test_a_node_key_off_its_curve_is_refused_without_quoting_it(tmp_path: Path, secret: object) -> None:
    path = tmp_path / "id.json"
    Identity.generate("a", node=True).save(path)
    value = json.loads(path.read_text())
    value["node_secret"] = secret
    path.write_text(json.dumps(value))
    with pytest.raises(SecAggMisuse) as refusal:
        Identity.load(path)
    assert refusal.value.reason is Reason.IDENTITY_INVALID
    assert str(secret) not in str(refusal.value).replace(str(path), "") or secret in (7, "!")


def test_two_sites_of_a_roster_never_share_a_node_key() -> None:
    first, second, *rest = (Identity.generate(name, node=True) for name in names(5))
    swapped = PublicIdentity(second.name, second.public.ed25519, second.public.mldsa65, first.public.node)
    roster = [first.public, swapped, *(site.public for site in rest)]
    with pytest.raises(SecAggMisuse, match="share a key"):
        Federation.create(make_federation(5).policy, roster, identity("coordinator"))


def test_a_node_key_cannot_be_swapped_in_a_signed_federation_file() -> None:
    sites = [Identity.generate(name, node=True).public for name in names(5)]
    federation = Federation.create(make_federation(5).policy, sites, identity("coordinator"))
    assert Federation.from_text(federation.to_text()).roster[0].node_key() == federation.roster[0].node_key()
    value = json.loads(federation.to_text())
    value["roster"][0]["node"] = Identity.generate("x", node=True).public.to_dict()["node"]
    assert refused(lambda: Federation.from_text(json.dumps(value))) is Reason.SIGNATURE_BAD
    del value["roster"][0]["node"]
    assert refused(lambda: Federation.from_text(json.dumps(value))) is Reason.SIGNATURE_BAD


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("name"),
        lambda v: v.update(extra=1),
        lambda v: v.update(format="qfed-identity-0"),
        lambda v: v.update({"ed25519_secret": "!"}),
        lambda v: v.update({"ed25519_secret": 7}),
        lambda v: v.update({"mldsa65_secret": "AAAA"}),
    ],
)
def test_a_file_that_is_no_identity_is_refused(tmp_path: Path, change: Callable[[Any], object]) -> None:
    path = tmp_path / "id.json"
    Identity.generate("a").save(path)
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    assert refused(lambda: Identity.load(path)) is Reason.IDENTITY_INVALID


def test_a_missing_or_broken_identity_file_is_refused(tmp_path: Path) -> None:
    assert refused(lambda: Identity.load(tmp_path / "none")) is Reason.IDENTITY_INVALID
    (tmp_path / "bad").write_text("{")
    assert refused(lambda: Identity.load(tmp_path / "bad")) is Reason.IDENTITY_INVALID
    assert refused(lambda: Identity.generate("a b")) is Reason.FIELD_MALFORMED
    assert refused(lambda: PublicIdentity("a", b"1", b"2")) is Reason.IDENTITY_INVALID
    assert refused(lambda: PublicIdentity.from_dict({"name": "a"})) is Reason.IDENTITY_INVALID


def test_fingerprints_tell_identities_apart() -> None:
    a, b = Identity.generate("a"), Identity.generate("a")
    assert a.fingerprint() != b.fingerprint()
    assert len(a.fingerprint().split()) == 10


def test_the_file_loads_again_and_keeps_its_digest(tmp_path: Path) -> None:
    federation = make_federation(5)
    federation.save(tmp_path / "f.json")
    pin = identity("coordinator").fingerprint()
    again = Federation.load(tmp_path / "f.json", pin)
    assert again.digest == federation.digest
    assert again == federation
    assert refused(lambda: Federation.load(tmp_path / "f.json", "0000")) is Reason.COORDINATOR_UNKNOWN
    assert refused(lambda: Federation.load(tmp_path / "none")) is Reason.FEDERATION_INVALID


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v["policy"].update(min_survivors=3), Reason.SIGNATURE_BAD),
        (lambda v: v["policy"].update(noise_floor=9.0), Reason.SIGNATURE_BAD),
        (lambda v: v.update(version=9), Reason.SIGNATURE_BAD),
        (lambda v: v["roster"][0].update(name="aaa"), Reason.SIGNATURE_BAD),
        (lambda v: v["roster"][0].update(Identity.generate("site-0000").public.to_dict()), Reason.SIGNATURE_BAD),
        (lambda v: v.update(coordinator=Identity.generate("coordinator").public.to_dict()), Reason.SIGNATURE_BAD),
        (lambda v: v.update(signature=v["signature"][:88]), Reason.SIGNATURE_STRIPPED),
        (lambda v: v.update(signature="!"), Reason.FEDERATION_INVALID),
        (lambda v: v.update(signature=None), Reason.FEDERATION_INVALID),
        (lambda v: v.update(version=0), Reason.FEDERATION_INVALID),
        (lambda v: v.update(version="1"), Reason.FEDERATION_INVALID),
        (lambda v: v.update(extra=1), Reason.FEDERATION_INVALID),
        (lambda v: v.update(roster={}), Reason.FEDERATION_INVALID),
        (lambda v: v["roster"].reverse(), Reason.FEDERATION_INVALID),
        (lambda v: v["roster"][1].update(v["roster"][0], name="site-0001"), Reason.FEDERATION_INVALID),
        (lambda v: v["policy"].pop("clip"), Reason.POLICY_INVALID),
        (lambda v: v["policy"].update(bits="16"), Reason.POLICY_INVALID),
        (lambda v: v["policy"].update(bits=True), Reason.POLICY_INVALID),
    ],
)
def test_any_change_of_the_file_is_refused(change: Callable[[Any], object], reason: Reason) -> None:
    value = json.loads(make_federation(5).to_text())
    change(value)
    assert refused(lambda: Federation.from_text(json.dumps(value))) is reason


def test_a_field_given_twice_and_text_that_is_no_json_are_refused() -> None:
    text = make_federation(5).to_text().replace('"version": 1,', '"version": 1, "version": 1,')
    assert refused(lambda: Federation.from_text(text)) is Reason.FEDERATION_INVALID
    assert refused(lambda: Federation.from_text("[")) is Reason.FEDERATION_INVALID
    assert refused(lambda: Federation.from_text("[]")) is Reason.FEDERATION_INVALID


def test_sites_are_added_and_revoked_by_the_same_coordinator_only() -> None:
    first = make_federation(5)
    policy = Policy.recommended("lab", 6)
    new = identity("site-new").public
    second = first.amended(identity("coordinator"), add=[new], policy=policy)
    assert second.version == 2
    assert "site-new" in second.index
    third = second.amended(identity("coordinator"), revoke=["site-new"], policy=first.policy)
    assert third.version == 3
    assert [s.name for s in third.roster] == names(5)
    assert third.digest != first.digest
    assert refused(lambda: first.amended(identity("mallory"), add=[new])) is Reason.COORDINATOR_UNKNOWN
    assert refused(lambda: first.amended(identity("coordinator"), revoke=["nobody"])) is Reason.FEDERATION_INVALID
    # Six sites need a policy for six: the guarantee would not be the one that was pinned.
    assert refused(lambda: first.amended(identity("coordinator"), add=[new])) is Reason.POLICY_INVALID
    assert refused(lambda: first.site("site-new")) is Reason.SYBIL


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"committee_size": 9}, Reason.POLICY_INVALID),
        ({"committee_size": 11}, Reason.POLICY_INVALID),
        ({"min_survivors": 11}, Reason.POLICY_INVALID),
        ({"min_survivors": 2}, Reason.POLICY_INVALID),
        ({"recoverable_drops": 5}, Reason.POLICY_INVALID),
        ({"recoverable_drops": -1}, Reason.POLICY_INVALID),
        ({"clip": 0.0}, Reason.POLICY_INVALID),
        ({"clip": math.nan}, Reason.POLICY_INVALID),
        ({"noise_floor": -1.0}, Reason.POLICY_INVALID),
        ({"bits": 1}, Reason.POLICY_INVALID),
        ({"ring_bits": 64}, Reason.POLICY_INVALID),
        ({"epoch_rounds": 0}, Reason.POLICY_INVALID),
        ({"max_weight": 0}, Reason.POLICY_INVALID),
        ({"privacy_unit": "person"}, Reason.POLICY_INVALID),
        ({"bits": 30}, Reason.RING_OVERFLOW),
    ],
)
def test_terms_that_do_not_hold_are_refused(terms: dict[str, Any], reason: Reason) -> None:
    assert refused(lambda: Policy.recommended("lab", 10, **terms)) is reason


def test_a_roster_too_large_and_a_name_too_odd_are_refused() -> None:
    assert refused(lambda: Policy.recommended("lab", 10).check(5000)) is Reason.POLICY_INVALID
    assert refused(lambda: Policy.recommended("a/b", 10)) is Reason.FIELD_MALFORMED


@pytest.mark.parametrize(("sites", "drops", "colluders"), [(5, 1, 2), (10, 2, 5), (20, 4, 11)])
def test_the_colluders_of_the_specification(sites: int, drops: int, colluders: int) -> None:
    policy = Policy.recommended("lab", sites)
    assert policy.committee_size == sites
    assert policy.recoverable_drops == drops
    assert collusion.colluders_tolerated(sites, drops, sites) == colluders
    assert policy.colluders == colluders


def test_a_drawn_committee_fails_less_often_than_2_to_the_minus_40() -> None:
    for sites in (100, 1000):
        policy = Policy.recommended("lab", sites)
        assert (
            collusion.failure_log2(policy.committee_size, policy.recoverable_drops, policy.min_survivors, sites // 10)
            < -40
        )
    smaller = collusion.failure_log2(policy.committee_size - 4, policy.recoverable_drops, 800, 100)
    assert smaller > collusion.failure_log2(policy.committee_size, policy.recoverable_drops, 800, 100)


def test_the_failure_probability_is_the_hypergeometric_tail() -> None:
    from scipy.stats import hypergeom

    want = math.log2(hypergeom.sf(22, 900, 100, 45) * collusion.MOST_ATTEMPTS * 900)
    assert collusion.failure_log2(45, 11, 900, 100) == pytest.approx(want, rel=1e-9)
    assert collusion.failure_log2(10, 2, 10, 5) == -math.inf
    assert collusion.failure_log2(10, 2, 10, 6) == 0.0
    for size, drops in ((10, 5), (0, 0)):
        with pytest.raises(LocalProtocolError, match=f"got L={size}, d={drops}"):
            collusion.failure_log2(size, drops, 10, 5)


def test_what_is_withstood_is_the_most_that_keeps_the_target() -> None:
    for sites in (100, 1000):
        policy = Policy.recommended("lab", sites)
        size, drops, least = policy.committee_size, policy.recoverable_drops, policy.min_survivors
        most = policy.withstands(sites)
        assert most >= max(sites // 10, policy.colluders)
        assert collusion.failure_log2(size, drops, least, most) < -40
        assert collusion.failure_log2(size, drops, least, most + 1) >= -40
    assert Policy.recommended("lab", 10).withstands(10) == 5, "all are on the committee"
    assert Policy.recommended("lab", 30, groups=3).withstands(30) == 5, "in one group"
    assert Policy.recommended("lab", 100, corrupt=20).withstands(100) >= 20
    assert Policy.recommended("lab", 100, corrupt=3) == Policy.recommended("lab", 100)
    assert Policy.recommended("lab", 1000, min_survivors=500).withstands(1000) >= 100, "where fewer must answer as well"
    assert refused(lambda: Policy.recommended("lab", 100, corrupt=60)) is Reason.POLICY_INVALID


def test_the_chance_of_a_bad_group_is_the_hypergeometric_tail() -> None:
    from scipy.stats import hypergeom

    # The server's worst choice of how many honest sites to leave out, up to a fifth.
    worst = 0.0
    for present in range(80, 101):
        groups = min(10, present // 10)
        largest = -(-present // groups)
        worst = max(worst, float(groups * hypergeom.sf(5, present, 10, largest)))
    want = math.log2(worst * collusion.MOST_ATTEMPTS)
    assert collusion.group_failure_log2(100, 10, 5, 10) == pytest.approx(want, rel=1e-9)
    assert collusion.group_failure_log2(12, 4, 1, 1) == -math.inf
    assert collusion.group_failure_log2(12, 4, 1, 2) == 0.0, "two of twelve may well meet in a group of three"


def test_the_table_in_the_argument_is_the_one_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from qfed.secagg import bound

    bound.main([])
    printed = capsys.readouterr().out.strip()
    assert printed in (Path(bound.__file__).parent / "SECURITY.md").read_text()
    bound.main(["--groups"])
    assert capsys.readouterr().out.strip() in (Path(bound.__file__).parent / "SECURITY.md").read_text()
    bound.main(["5"])
    assert capsys.readouterr().out.count("\n") == 3
    assert "2^-" in bound.table([2000])[-1]
