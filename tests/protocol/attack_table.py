"""Prints the attack table of SECURITY.md: attack, outcome, the test that plays it.

python tests/protocol/attack_table.py

An outcome is the reason code with which the attack is refused, or in words what it yields. `test_attack_table.py`
holds each row to its test: the test is there, names each reason, and the table in SECURITY.md is the one printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qfed.secagg import Reason

TESTS = Path(__file__).parents[1]
ATTACKS, GROUPS = "protocol/test_secagg_attacks.py", "protocol/test_secagg_groups.py"
DRAWN = "protocol/test_secagg_drawn.py"
REPLAYS, ROUNDS = "protocol/test_secagg_replays.py", "protocol/test_secagg_rounds.py"
STORE, VALUES = "unit/secagg/test_secagg_store.py", "unit/secagg/test_secagg_encoding.py"
FILES = "unit/secagg/test_secagg_federation.py"
R = Reason


@dataclass(frozen=True)
class Attack:
    """One row: what is tried, with what it is refused (or what comes of it), and where that is tested."""

    name: str
    outcome: tuple[Reason, ...] | str
    file: str
    test: str


TABLE = (
    Attack("another federation, run or policy", (R.WRONG_FEDERATION, R.WRONG_RUN), ATTACKS,
           "test_a_request_of_another_federation_run_or_policy_is_refused"),
    Attack("federation file changed: policy, key, version, signature",
           (R.SIGNATURE_BAD, R.SIGNATURE_STRIPPED, R.FEDERATION_INVALID, R.POLICY_INVALID), FILES,
           "test_any_change_of_the_file_is_refused"),
    Attack("federation file of another coordinator", (R.COORDINATOR_UNKNOWN,), FILES,
           "test_the_file_loads_again_and_keeps_its_digest"),
    Attack("older federation file", (R.FEDERATION_OUTDATED,), STORE, "test_an_older_federation_file_is_refused"),
    Attack("old epoch", (R.STALE_EPOCH, R.WRONG_EPOCH, R.NOT_ASKED), ATTACKS, "test_an_old_epoch_is_refused"),
    Attack("keys of a past epoch", (R.NOT_INSTALLED, R.NOT_ASKED), ATTACKS, "test_the_keys_of_a_past_epoch_are_gone"),
    Attack("Sybil", (R.SYBIL,), ATTACKS, "test_a_sybil_is_refused"),
    Attack("one site twice", (R.DUPLICATE_SITE, R.BAD_TRANSCRIPT), ATTACKS, "test_a_site_twice_is_refused"),
    Attack("KEM key swapped in transit", (R.KEM_KEY_SWAPPED,), ATTACKS, "test_a_swapped_kem_key_is_refused"),
    Attack("the site's own key swapped with its stolen signing key", (R.KEM_KEY_SWAPPED,), ATTACKS,
           "test_the_sites_own_key_swapped_by_one_who_owns_its_signing_key_is_refused"),
    Attack("stripped or forged signature, classical or post-quantum", (R.SIGNATURE_STRIPPED, R.SIGNATURE_BAD), ATTACKS,
           "test_both_signatures_must_be_there_and_verify"),
    Attack("two worlds: two transcripts for one site", (R.SPLIT_TRANSCRIPT,), ATTACKS,
           "test_two_worlds_one_site_cannot_be_in_both"),
    Attack("two worlds: a member deals twice", (R.SPLIT_TRANSCRIPT,), ATTACKS,
           "test_two_worlds_a_member_deals_for_one_transcript_only"),
    Attack("two worlds: a committee that few have signed",
           (R.NOT_CONFIRMED, R.WRONG_SITE, R.WRONG_VIEW, R.NOT_A_MEMBER), ATTACKS,
           "test_two_worlds_an_incomplete_committee_takes_the_signatures_of_l_minus_d_members"),
    Attack("two worlds: two committees for one member", (R.SPLIT_VIEW, R.NOT_A_MEMBER), ATTACKS,
           "test_two_worlds_a_member_confirms_and_installs_one_committee_only"),
    Attack("two worlds: sums across committees", "uniform noise", ATTACKS,
           "test_two_worlds_with_different_committees_share_no_masks"),
    Attack("bad or missing nonce", (R.BAD_NONCE, R.NONCE_MISSING), ATTACKS, "test_a_bad_or_missing_nonce_is_refused"),
    Attack("committees drawn until one suits", (R.TOO_MANY_ATTEMPTS,), ATTACKS,
           "test_drawing_committees_until_one_suits_is_refused"),
    Attack("committees tried offline with nonces opened for another set", (R.SPLIT_TRANSCRIPT,), DRAWN,
           "test_nonces_opened_for_one_set_draw_no_committee_from_another"),
    Attack("a member that was not drawn", (R.NOT_A_MEMBER,), DRAWN, "test_a_committee_that_was_not_drawn_is_refused"),
    Attack("sealed key forged, tampered, redirected", (R.SEALED_KEY_FORGED,), ATTACKS,
           "test_forged_tampered_and_redirected_sealed_keys_are_refused"),
    Attack("sealed key of the server's own", (R.SYBIL, R.SIGNATURE_BAD), ATTACKS,
           "test_a_header_that_the_server_signs_for_a_member_is_refused"),
    Attack("corrupt member seals rubbish or wrong shares", (R.SEALED_KEY_UNREADABLE, R.SHARE_CORRUPT), ATTACKS,
           "test_a_corrupt_member_that_seals_rubbish_or_wrong_shares_is_refused"),
    Attack("forged deposit", (R.DEPOSIT_FORGED, R.SEALED_KEY_FORGED, R.WRONG_SITE), ATTACKS,
           "test_forged_setups_are_refused_by_the_aggregator"),
    Attack("deposit that does not open", (R.DEPOSIT_FORGED,), ATTACKS,
           "test_a_corrupt_members_deposit_that_does_not_open_is_refused"),
    Attack("two vectors under one label", "the bytes of the first, again", ATTACKS,
           "test_a_label_never_masks_two_vectors"),
    Attack("repeated or stale label, round beyond the epoch", (R.LABEL_REPEATED, R.LABEL_STALE, R.ROUND_BEYOND_EPOCH),
           ATTACKS, "test_a_repeated_and_a_stale_label_are_refused"),
    Attack("replay in another round, epoch or step", (R.WRONG_ROUND, R.WRONG_EPOCH, R.WRONG_KIND), REPLAYS,
           "test_replies_of_another_round_epoch_or_step_are_refused"),
    Attack("survivors too few, twice, unknown", (R.SURVIVORS_TOO_FEW, R.SURVIVOR_DUPLICATED, R.SURVIVOR_UNREGISTERED),
           ATTACKS, "test_bad_sets_of_survivors_are_refused"),
    Attack("split survivors: a second set to one member", (R.SURVIVORS_SPLIT,), ATTACKS,
           "test_a_second_set_of_survivors_is_refused"),
    Attack("split survivors: different sets to different members", "uniform noise", ATTACKS,
           "test_members_asked_with_different_survivors_give_sums_that_do_not_combine"),
    Attack("lies about drops: oneself in D, |D| > d, unknown",
           (R.LOST_SELF, R.LOST_TOO_MANY, R.LOST_DUPLICATED, R.LOST_UNREGISTERED), ATTACKS,
           "test_lies_about_drops_are_refused"),
    Attack("lies about drops: d live members opened", "the update stays uniform", ATTACKS,
           "test_with_d_members_opened_by_lies_one_update_is_still_masked"),
    Attack("corrupted or too few shares", (R.SHARE_CORRUPT, R.SHARES_TOO_FEW), ATTACKS,
           "test_the_aggregator_refuses_replies_that_are_not_what_it_asked"),
    Attack("late upload", (R.LATE_UPLOAD,), ROUNDS, "test_a_late_upload_is_refused"),
    Attack("vector altered on the way, its digest recomputed or not", (R.BODY_TAMPERED, R.SIGNATURE_BAD), ATTACKS,
           "test_a_vector_altered_on_the_way_is_refused_whatever_is_recomputed"),
    Attack("rollback: an older store", (R.ROLLBACK,), STORE, "test_a_restored_backup_is_refused"),
    Attack("rollback: store and witness together", (R.ROLLBACK,), STORE,
           "test_a_backup_restored_with_its_witness_is_another_file"),
    Attack("rollback: a snapshot of the machine, honest aggregator", (R.ROLLBACK,), STORE,
           "test_a_snapshot_of_the_whole_machine_is_noticed_by_the_receipt"),
    Attack("NaN, infinity, out of range", (R.NOT_FINITE, R.OUT_OF_RANGE), VALUES,
           "test_values_that_do_not_fit_are_refused_wherever_they_stand"),
    Attack("overweight", (R.OVERWEIGHT,), VALUES, "test_a_weight_beyond_the_policy_is_refused"),
    Attack("ring overflow", (R.RING_OVERFLOW,), VALUES, "test_a_sum_that_could_wrap_is_refused"),
    Attack("groups: one that the aggregator made up", (R.WRONG_FEDERATION,), GROUPS,
           "test_a_group_that_the_aggregator_made_up_is_refused"),
    Attack("groups: sites left out when the nonces are known",
           (R.SPLIT_TRANSCRIPT, R.NONCE_MISSING, R.BAD_NONCE), GROUPS,
           "test_who_may_see_the_nonces_may_not_choose_the_sites"),
    Attack("groups: honest sites left out of the draw", (R.SITES_TOO_FEW,), GROUPS,
           "test_a_draw_takes_four_fifths_of_the_roster"),
    Attack("groups: drawn until they suit", (R.TOO_MANY_ATTEMPTS,), GROUPS,
           "test_drawing_groups_until_they_suit_is_refused"),
    Attack("groups against the policy, or a sum beside them", (R.WRONG_FEDERATION, R.WRONG_KIND), GROUPS,
           "test_no_sum_over_all_sites_beside_the_groups_and_no_groups_against_the_policy"),
)  # fmt: skip


def outcome_of(attack: Attack) -> str:
    """The outcome as it stands in the table."""
    if isinstance(attack.outcome, str):
        return attack.outcome
    return "refused: " + ", ".join(f"`{reason.value}`" for reason in attack.outcome)


def table() -> list[str]:
    """The table's lines, in Markdown."""
    rows = [f"| {a.name} | {outcome_of(a)} | `{Path(a.file).stem}::{a.test}` |" for a in TABLE]
    return ["| attack | outcome | test |", "|:--|:--|:--|", *rows]


if __name__ == "__main__":
    print("\n".join(table()))
