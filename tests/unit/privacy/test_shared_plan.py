"""Mode shared and mode site: charged first, the right noise, the right sensitivity, nothing that tells how many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

from qfed.config import load_config, replace
from qfed.errors import BudgetExhausted, ConfigError, PolicyRefused
from qfed.federation.contribution import mean_update
from qfed.privacy.accounting import Releases, epsilon_of
from qfed.privacy.accounts import account
from qfed.privacy.discrete import DiscreteGaussian
from qfed.privacy.grid import GRID_STEPS, sensitivity
from qfed.privacy.ledger import Ledger, Limits
from qfed.privacy.plan import SharedPlan, SitePlan, metrics_plan_for, plan_for
from qfed.privacy.shares import Shares

Data = tuple[Tensor, Tensor]
AnyShared = SharedPlan | SitePlan


def shared(sigma: float = 2.0, **changes: float) -> SharedPlan:
    terms = {"sampling_rate": 1.0, "batch_size": 10.0, "rounds": 100, "clip_norm": 1.0, "delta": 1e-5} | changes
    return SharedPlan(**terms, shares=Shares(sigma, 6, 10, 32))  # type: ignore[arg-type]


def site_plan(sigma: float = 2.0, clip: float = 1.0, steps: int = 3) -> SitePlan:
    return SitePlan(steps, 4.0, 1.0, 100, clip, 1e-5, Shares(sigma, 6, 10, 32))


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1.0)


def squared(outputs: Tensor, y: Tensor) -> Tensor:
    return ((outputs[:, 0] - y) ** 2) / 2


def linear(dim: int) -> nn.Linear:
    model = nn.Linear(dim, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model


def never() -> Data:
    raise AssertionError("records were read")


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Ledger]:
    book = Ledger(tmp_path / "ledger.db", Limits(1e9, 1e-5))
    yield book
    book.close()


def part(plan: AnyShared, book: Ledger, x: Tensor, y: Tensor, run: str = "r", round: int = 1) -> np.ndarray:
    model = linear(x.shape[1])
    return plan.release(
        model, squared, lambda: (x, y), optimizer=sgd, ledger=book, dataset="d", run=run, round=round
    )  # fmt: skip


def accepts(noise: np.ndarray, stddev: float) -> bool:
    statistic = float(np.sum((noise / stddev) ** 2))
    return bool(chi2.ppf(1e-6, len(noise)) < statistic < chi2.isf(1e-6, len(noise)))


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiscreteGaussian, "sample", lambda self, size: np.zeros(size, np.int64))


@pytest.mark.parametrize("records", [0, 1, 50])
@pytest.mark.parametrize("plan", [shared(3.0), site_plan(3.0)], ids=["shared", "site"])
def test_a_part_carries_its_share_whatever_the_records(book: Ledger, plan: AnyShared, records: int) -> None:
    dim = 20_000
    noise = part(plan, book, torch.zeros(records, dim), torch.zeros(records))
    stddev = 3.0 * sensitivity(dim) / math.sqrt(6)
    assert accepts(noise, stddev)
    assert not accepts(noise, stddev * 2 / 3)
    assert not accepts(noise, stddev * 3 / 2)
    again = part(plan, book, torch.zeros(records, dim), torch.zeros(records), round=2)
    assert abs(np.corrcoef(noise, again)[0, 1]) < 6 / math.sqrt(dim)


@pytest.mark.usefixtures("silent")
def test_the_sum_of_clipped_gradients_in_grid_steps(book: Ledger) -> None:
    x = torch.tensor([[1e4, 0.0], [0.0, 0.25], [float("nan"), 1.0]])
    y = torch.tensor([1e4, 0.5, 1.0])
    found = part(shared(clip_norm=0.5), book, x, y)
    # -x y, clipped to 1/2; the record that is not finite counts zero where it is not.
    expected = np.array([-0.5, -0.125]) * GRID_STEPS / 0.5
    assert np.linalg.norm(found - expected) <= GRID_STEPS * 1.001, "the third record adds its clip norm at most"
    assert np.array_equal(part(shared(clip_norm=0.5), book, x[:2], y[:2], run="s"), np.rint(expected))


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("plan", [shared(), site_plan(clip=0.3)], ids=["shared", "site"])
def test_one_unit_moves_a_part_no_further_than_the_noise_is_made_for(book: Ledger, plan: AnyShared) -> None:
    rng = np.random.default_rng(3)
    worst = 0.0
    for number in range(25):
        dim = int(rng.integers(1, 40))
        x = torch.from_numpy(rng.normal(size=(30, dim)) * 10.0 ** rng.integers(-2, 4)).float()
        y = torch.from_numpy(rng.normal(size=30)).float() * 5
        whole = part(plan, book, x, y, run=f"w{number}")
        # Taken away: one record, or all that the site has.
        rest = part(plan, book, x[1:], y[1:], run=f"v{number}") if isinstance(plan, SharedPlan) else 0
        moved = float(np.linalg.norm(whole - rest)) / sensitivity(dim)
        worst = max(worst, moved)
        assert moved <= 1
    assert worst > 0.9, "the bound is nearly reached, so half the noise would be noticed"


def test_charged_before_records_are_read_and_never_twice(book: Ledger) -> None:
    for plan, name in ((shared(), "d"), (site_plan(), account("d", "site"))):
        model, seen = linear(3), []

        def read(seen: list[str] = seen) -> Data:
            seen += [entry.what for entry in book.rows() if entry.dataset == name]  # noqa: B023
            raise OSError("disk on fire")

        with pytest.raises(OSError, match="on fire"):
            plan.release(model, squared, read, optimizer=sgd, ledger=book, dataset="d", run="r", round=1)
        assert seen == ["open", "reserve"]
        assert book.spent(name) > 0
        with pytest.raises(PolicyRefused, match="cut off"):
            plan.release(model, squared, never, optimizer=sgd, ledger=book, dataset="d", run="r", round=1)


def test_a_round_that_is_over_is_not_computed_again(book: Ledger) -> None:
    x, y = torch.ones(4, 3), torch.ones(4)
    part(shared(), book, x, y)
    with pytest.raises(PolicyRefused, match="is over"):
        shared().release(linear(3), squared, never, ledger=book, dataset="d", run="r", round=1)
    assert len(book.rows()) == 3


def test_no_part_before_masking_is_kept_in_the_ledger(book: Ledger) -> None:
    part(shared(), book, torch.ones(4, 3), torch.ones(4))
    assert all(entry.reply is None for entry in book.rows())


def test_nothing_is_read_when_the_budget_says_no(tmp_path: Path) -> None:
    tight = Ledger(tmp_path / "tight.db", Limits(0.01, 1e-5))
    for plan in (shared(), site_plan()):
        with pytest.raises(BudgetExhausted, match="Nothing was read"):
            plan.release(linear(3), squared, never, optimizer=sgd, ledger=tight, dataset="d", run="r", round=1)
    assert tight.rows() == ()
    tight.close()


@pytest.mark.usefixtures("silent")
def test_a_released_round_leaves_the_model_as_it_was(book: Ledger) -> None:
    for plan in (shared(), site_plan()):
        model = nn.Linear(3, 1)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        x, y = torch.rand(9, 3), torch.rand(9)
        found = plan.release(
            model, squared, lambda x=x, y=y: (x, y), optimizer=sgd, ledger=book, dataset="d", run="m", round=1
        )
        assert np.abs(found).max() > 0
        assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


@pytest.mark.usefixtures("silent")
def test_mode_site_sends_its_move_clipped(book: Ledger) -> None:
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([4.0])
    # Three steps w <- w + (4 - w) / 4 from 0 give 4 (1 - 0.75^3) = 2.3125, along the first axis.
    assert part(site_plan(clip=10.0), book, x, y).tolist() == [round(2.3125 * GRID_STEPS / 10), 0]
    assert part(site_plan(clip=0.5), book, x, y, run="s").tolist() == [GRID_STEPS, 0]


@pytest.mark.usefixtures("silent")
def test_poisson_sampling_takes_the_rate_and_no_records_at_all_is_fine(book: Ledger) -> None:
    x, y = torch.full((4000, 1), 0.1), torch.full((4000,), 0.1)
    plan = shared(sampling_rate=0.2, rounds=2)
    taken = [-part(plan, book, x, y, run=f"r{n}")[0] / (0.01 * GRID_STEPS) for n in range(12)]
    assert np.mean(taken) == pytest.approx(800, abs=6 * math.sqrt(640 / 12))
    assert len(set(taken)) > 3
    assert part(plan, book, x[:0], y[:0], run="none").tolist() == [0]


@pytest.mark.parametrize("survivors", [8, 10])
@pytest.mark.parametrize("records", [3, 300])
def test_the_denominator_is_public(survivors: int, records: int) -> None:
    config = load_config(None, ["training.batch_size=20", "training.learning_rate=0.5", "privacy.clip_norm=2"])
    total = np.full(3, 100.0 * records)
    update = mean_update(config, {"part": total}, survivors)
    assert update is not None
    assert update == pytest.approx(-0.5 * total * 2 / GRID_STEPS / (survivors * 20))


def budgets() -> list[list[str]]:
    return [
        ["privacy.epsilon=1"],
        ["training.sampling_rate=0.5", "privacy.epsilon=3"],
        ["privacy.mode=site", "federation.sites=60", "training.local_steps=4"],
    ]


@pytest.mark.parametrize("changes", budgets(), ids=["full batch", "sampled", "site"])
def test_a_run_is_calibrated_and_fits_its_ledger(tmp_path: Path, changes: list[str]) -> None:
    config = load_config(None, [*changes, "training.rounds=2"])
    plan = plan_for(config)
    assert isinstance(plan, SharedPlan | SitePlan)
    book = Ledger(tmp_path / "book.db", Limits(config.privacy.epsilon, config.privacy.delta))
    for round in range(1, 3):
        part(plan, book, torch.ones(9, 2), torch.ones(9), round=round)
        assert book.spent(account("d", config.privacy.unit)) == pytest.approx(plan.epsilon(round), rel=1e-6)
    assert 0.99 * config.privacy.epsilon < plan.epsilon(2) <= config.privacy.epsilon
    with pytest.raises(BudgetExhausted):
        part(plan, book, torch.ones(9, 2), torch.ones(9), round=3)
    book.close()


def test_colluders_and_least_survivors_make_the_share() -> None:
    plan = plan_for(load_config(None, ["federation.sites=10"]))
    assert isinstance(plan, SharedPlan)
    assert plan.shares.honest == 8 - 2
    more = plan_for(load_config(None, ["federation.sites=10", "privacy.colluders=4"]))
    assert isinstance(more, SharedPlan)
    assert more.shares.honest == 4
    assert more.noise_multiplier == plan.noise_multiplier
    assert more.shares.stddev(100) == pytest.approx(plan.shares.stddev(100) * math.sqrt(6 / 4))


def test_what_a_share_alone_gives_is_said() -> None:
    # Design: epsilon 2.7 for claim 1 with n_min = 6; here with the closed form of full batches.
    plan = plan_for(load_config(None, ["privacy.epsilon=1"]))
    assert isinstance(plan, SharedPlan)
    weaker = Releases(1.0, plan.noise_multiplier / math.sqrt(6), 40)
    assert plan.alone(40) == pytest.approx(epsilon_of([weaker], 1e-5), rel=1e-6)
    assert plan.alone(40) == pytest.approx(2.7, abs=0.1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["secagg.mode=off"], "needs secure aggregation"),
        (["privacy.mode=site", "secagg.mode=off", "federation.sites=60"], "needs secure aggregation"),
        (["training.local_steps=3"], "one step a round"),
        (["federation.sites=4", "privacy.colluders=3"], "at least 2 must"),
        (["privacy.mode=site", "federation.sites=9"], "privacy.few_sites=true"),
        (["privacy.mode=off", "privacy.private_metrics=true"], "needs privacy"),
    ],
)
def test_what_would_break_the_guarantee_is_no_configuration(changes: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(None, changes)


def test_few_sites_may_be_asked_for() -> None:
    config = load_config(None, ["privacy.mode=site", "federation.sites=9", "privacy.few_sites=true"])
    assert config.privacy.unit == "site"
    assert replace(config, {"privacy.mode": "shared"}).privacy.unit == "record"


def metrics(*changes: str, unit: str = "shared") -> Callable[..., np.ndarray]:
    config = load_config(None, ["privacy.private_metrics=true", f"privacy.mode={unit}", *changes])
    plan = metrics_plan_for(config)
    assert plan is not None

    def release(book: Ledger, sums: tuple[float, float, float], run: str = "r") -> np.ndarray:
        return plan.release(
            lambda: sums, (1.0, 16.0, 1.0), asked=b"model", ledger=book, dataset="d", run=run, round=1
        )  # fmt: skip

    return release


@pytest.mark.usefixtures("silent")
def test_metrics_are_scaled_so_that_a_record_counts_at_most_one_each(book: Ledger) -> None:
    found = metrics()(book, (7.0, 32.0, 10.0))
    assert np.array_equal(found, np.rint(np.array([7, 2, 10]) * GRID_STEPS / math.sqrt(3)))
    at_sites = metrics("federation.sites=60", unit="site")(book, (7.0, 32.0, 10.0))
    assert np.array_equal(at_sites, np.rint(np.array([0.7, 0.2, 1.0]) * GRID_STEPS / math.sqrt(3)))


def test_metrics_are_charged_to_the_held_out_records_once(book: Ledger) -> None:
    release = metrics("privacy.epsilon=2")
    release(book, (7.0, 32.0, 10.0))
    name = account("d", held_out=True)
    assert book.spent(name) == pytest.approx(2.0, abs=1e-3)
    assert book.spent("d") == 0, "the training records lose nothing"
    with pytest.raises(PolicyRefused, match="is over"):
        release(book, (7.0, 32.0, 10.0))


@pytest.mark.parametrize(("mode", "honest"), [("shared", 6), ("local", 1)])
def test_metrics_carry_their_share_of_the_noise(book: Ledger, mode: str, honest: int) -> None:
    release = metrics("privacy.noise_multiplier=50", "privacy.epsilon=1", unit=mode)
    found = np.concatenate([release(book, (7.0, 32.0, 10.0), run=f"r{n}") for n in range(60)])
    found -= np.tile(np.rint(np.array([7, 2, 10]) * GRID_STEPS / math.sqrt(3)).astype(int), 60)
    plan = metrics_plan_for(load_config(None, ["privacy.private_metrics=true", "privacy.epsilon=1"]))
    assert plan is not None
    stddev = plan.shares.noise_multiplier * sensitivity(3) / math.sqrt(honest)
    assert accepts(found.astype(float), stddev)
    assert not accepts(found.astype(float), stddev * 2 / 3)
    assert not accepts(found.astype(float), stddev * 3 / 2)
