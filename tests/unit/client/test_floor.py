"""The site's floor: every limit of its policy has a refusal of its own, told before any record is read."""

from __future__ import annotations

from typing import Any

import pytest
from small_runs import small

from qfed.config import RunConfig, SitePolicy, load_config, replace
from qfed.errors import (
    ClearRefused,
    CodeRefused,
    CohortRefused,
    DeltaRefused,
    EpsilonRefused,
    KindRefused,
    ModelRefused,
    ModeRefused,
    NoiseRefused,
    PolicyRefused,
    ProviderRefused,
    ResourcesRefused,
    RoundsRefused,
    TermsRefused,
    UnitRefused,
)
from qfed.federation.contribution import policy_of
from qfed.privacy.plan import plan_for
from qfed_client.floor import refuse_below


def asked(config: RunConfig, run: dict[str, Any] | None = None, **policy: Any) -> None:
    """What a site with this policy says to `config` with the changes `run`, which the federation file fits."""
    changed = replace(config, run or {})
    limits = {"epsilon": config.privacy.epsilon, "delta": config.privacy.delta} | policy
    refuse_below(SitePolicy(**limits), changed, policy_of(changed, "lab"))


CONFIG = small("privacy.mode=local")

REMOTE = {"device": "ionq.simulator", "shots": 10, "trust_provider": True}
"""A run that trusts its provider; whether the site does is the site's to say."""

REFUSALS: list[tuple[type[PolicyRefused], dict[str, Any], dict[str, Any], str]] = [
    (KindRefused, {}, {"kinds": ("synthesize",)}, "runs of kind synthesize, got kind='train'"),
    (ModeRefused, {"privacy.mode": "off"}, {}, "without differential privacy"),
    (ModeRefused, {}, {"modes": ("shared", "site")}, "privacy modes shared, site, got privacy.mode='local'"),
    (UnitRefused, {}, {"units": ("site",)}, "protection of each site, got 'record'"),
    (EpsilonRefused, {"privacy.epsilon": 3.5}, {}, "budget is epsilon=3.0, the run asks for 3.5"),
    (DeltaRefused, {"privacy.delta": 1e-4}, {}, "delta=1e-05, the run asks for 0.0001"),
    (NoiseRefused, {}, {"least_noise": 40.0}, "at least 40, the run's plan has"),
    (RoundsRefused, {}, {"most_rounds": 1}, "at most 1 rounds of a run, got training.rounds=2"),
    (CohortRefused, {}, {"least_survivors": 5}, "at least 5 sites only, the run opens them over 4"),
    (CohortRefused, {}, {"least_sites": 6}, "runs of at least 6 sites, got federation.sites=5"),
    (ModelRefused, {}, {"models": ("qcnn", "dense/basic_entangler")}, "the run asks for 'reuploading'"),
    (ModelRefused, {"model.circuit": "basic_entangler"}, {"models": ("reuploading",)}, "'dense/basic_entangler'"),
    (ModelRefused, {}, {"most_parameters": 43}, "at most 43 parameters, the run's has 44"),
    (ResourcesRefused, {}, {"most_wires": 1}, "at most 1 wires, got model.wires=2"),
    (ClearRefused, {"secagg.mode": "off"}, {}, "updates in clear"),
    (ProviderRefused, {"quantum": REMOTE, "model.kind": "hybrid"}, {}, "does not trust its provider"),
    (ProviderRefused, {"quantum": REMOTE | {"device": "my.plugin", "remote": False}, "model.kind": "hybrid"}, {},
     "policy.local_devices"),
    (CodeRefused, {"model.circuit": "own.py:circuit", "model.kind": "hybrid",
                   "model.weight_shapes": {"weights": [2]}}, {}, "built-in circuits only"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "run", "policy", "text"), REFUSALS)
def test_each_limit_has_its_own_refusal(
    error: type[PolicyRefused], run: dict[str, Any], policy: dict[str, Any], text: str
) -> None:
    asked(CONFIG)
    with pytest.raises(error, match=text) as caught:
        asked(CONFIG, run, **policy)
    assert type(caught.value) is error, "the aggregator is told the type, so it says the reason"


COUNTS = load_config(None, ["kind=synthesize", "data.source=wine", "federation.sites=5"])


@pytest.mark.parametrize(
    ("error", "run", "policy", "text"),
    [
        (KindRefused, {}, {"kinds": ("train",)}, "runs of kind train, got kind='synthesize'"),
        (ModeRefused, {"privacy.mode": "off"}, {}, "without differential privacy"),
        (ModeRefused, {}, {"modes": ("local",)}, "privacy modes local, got privacy.mode='shared'"),
        (EpsilonRefused, {"privacy.epsilon": 3.5}, {}, "budget is epsilon=3.0, the run asks for 3.5"),
        (EpsilonRefused, {}, {"epsilon_alone": 5.0}, "would leave this site epsilon=5.6"),
        (DeltaRefused, {"privacy.delta": 1e-4}, {}, "delta=1e-05, the run asks for 0.0001"),
        (NoiseRefused, {}, {"least_noise": 1.5}, "at least 1.5, the run's plan has 1.39"),
        (CohortRefused, {}, {"least_survivors": 5}, "at least 5 sites only, the run opens them over 4"),
        (ClearRefused, {"secagg.mode": "off", "privacy.mode": "local"}, {}, "updates in clear"),
    ],
)  # fmt: skip
def test_the_floor_holds_for_a_release_of_counts_too(
    error: type[PolicyRefused], run: dict[str, Any], policy: dict[str, Any], text: str
) -> None:
    asked(COUNTS)
    with pytest.raises(error, match=text) as caught:
        asked(COUNTS, run, **policy)
    assert type(caught.value) is error


def test_other_terms_than_the_federation_file_are_refused() -> None:
    with pytest.raises(TermsRefused, match=r"federation file: bits=12 for 19 .*terms\.toml"):
        refuse_below(
            SitePolicy(epsilon=3.0, delta=1e-5), replace(CONFIG, {"secagg.bits": 12}), policy_of(CONFIG, "lab")
        )


def test_the_noise_floor_of_the_federation_file_holds_too() -> None:
    pinned = policy_of(CONFIG, "lab")
    sigma = plan_for(CONFIG).noise_multiplier
    assert sigma is not None
    object.__setattr__(pinned, "noise_floor", sigma * 1.01)
    with pytest.raises(PolicyRefused):
        refuse_below(SitePolicy(epsilon=3.0, delta=1e-5), CONFIG, pinned)


def test_what_is_left_without_secure_aggregation_has_a_limit_of_its_own() -> None:
    shared = small("privacy.mode=shared", "training.local_steps=1")
    alone = plan_for(shared).describe()["epsilon_alone"]
    assert isinstance(alone, float)
    assert alone > shared.privacy.epsilon
    asked(shared, epsilon_alone=alone * 1.01)
    with pytest.raises(EpsilonRefused, match=r"would leave this site epsilon=.* epsilon_alone="):
        asked(shared, epsilon_alone=alone * 0.99)
    asked(CONFIG, epsilon_alone=0.1)  # mode local rests on nothing of the kind


def test_limits_that_are_just_met_are_accepted() -> None:
    sigma = plan_for(CONFIG).noise_multiplier
    asked(CONFIG, least_noise=sigma, most_rounds=2, least_survivors=4, modes=("local",), units=("record",))
    asked(CONFIG, least_sites=5, models=("reuploading",), most_wires=2, most_parameters=44)
    asked(CONFIG, {"model.circuit": "basic_entangler"}, models=("dense/basic_entangler",))
    asked(CONFIG, {"privacy.mode": "off"}, require_privacy=False)
    clear = replace(CONFIG, {"secagg.mode": "off"})
    lenient = SitePolicy(epsilon=3.0, delta=1e-5, require_secagg=False)
    refuse_below(lenient, clear, policy_of(clear, "lab"), simulated=True)
    with pytest.raises(ClearRefused, match="simulations only"):
        refuse_below(lenient, clear, policy_of(clear, "lab"))


def test_what_the_configuration_says_of_its_noise_is_not_taken_for_it() -> None:
    """A given noise multiplier is the plan's own; the floor looks at the plan."""
    louder = {"privacy.noise_multiplier": 50.0}
    asked(CONFIG, louder, least_noise=49.0)
    with pytest.raises(NoiseRefused):
        asked(CONFIG, louder, least_noise=51.0)


def test_a_policy_names_models_that_exist() -> None:
    with pytest.raises(ValueError, match="'resnet' is none of"):
        SitePolicy(epsilon=1.0, delta=1e-5, models=("resnet",))


def test_a_site_that_trusts_a_provider_or_knows_the_plugin_takes_part() -> None:
    config = replace(CONFIG, {"model.kind": "hybrid"})
    asked(config, {"quantum": REMOTE}, trust_provider=True)
    asked(config, {"quantum": {"device": "my.plugin", "remote": False}}, local_devices=("my.plugin",))
    asked(config, {"quantum": {"device": "default.qubit"}})
    with pytest.raises(ProviderRefused):  # what the run calls remote is remote, whatever the site knows of it
        asked(config, {"quantum": REMOTE | {"device": "my.plugin", "remote": True}}, local_devices=("my.plugin",))
