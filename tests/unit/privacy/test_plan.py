"""The door to noise: the right amount, from the right source, charged first; nothing tells the record count."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest
from torch import Tensor, nn

from qfed.config import RunConfig, load_config
from qfed.errors import BudgetExhausted, ConfigError, LocalProtocolError, PolicyRefused, ShapeError
from qfed.privacy.ledger import Ledger, Limits
from qfed.privacy.noise import gaussian, poisson_sample
from qfed.privacy.plan import LocalPlan, OpenPlan, Receipt, plan_for

RNG = np.random.default_rng(0)


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1.0)


def squared(outputs: Tensor, y: Tensor) -> Tensor:
    return ((outputs[:, 0] - y) ** 2) / 2


def ledger(folder: Path, epsilon: float = 1e9) -> Ledger:
    return Ledger(folder / "ledger.db", Limits(epsilon, 1e-5))


def local(**changes: float) -> LocalPlan:
    terms: dict[str, float] = {
        "local_steps": 1, "sampling_rate": 1.0, "batch_size": 10.0, "rounds": 10**6, "clip_norm": 1.0,
        "noise_multiplier": 1.0, "delta": 1e-5,
    }  # fmt: skip
    return LocalPlan(**(terms | changes))  # type: ignore[arg-type]


def move(plan: LocalPlan, x: Tensor, y: Tensor, folder: Path, dim: int) -> Tensor:
    """How far one round of one step moves a linear model from zero."""
    model = nn.Linear(dim, 1, bias=False)
    nn.init.zeros_(model.weight)
    book = ledger(folder)
    plan.train_round(model, squared, lambda: (x, y), optimizer=sgd, ledger=book, dataset="d", run="r", round=1, rng=RNG)
    book.close()
    return model.weight.detach().ravel()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No noise, to see what it hides."""
    monkeypatch.setattr("qfed.privacy.clipping.gaussian", lambda size, stddev: np.zeros(size))


def accepts(noise: np.ndarray, stddev: float) -> bool:
    """Whether a chi-square test at 1e-6 on each side accepts this standard deviation."""
    statistic = float(np.sum((noise / stddev) ** 2))
    return bool(chi2.ppf(1e-6, len(noise)) < statistic < chi2.isf(1e-6, len(noise)))


@pytest.mark.parametrize("sigma", [0.7, 3.0])
def test_a_step_carries_noise_of_sigma_times_clip_over_batch(tmp_path: Path, sigma: float) -> None:
    dim, clip, batch = 20_000, 0.5, 8.0
    plan = local(noise_multiplier=sigma, clip_norm=clip, batch_size=batch)
    moved = move(plan, torch.zeros(4, dim), torch.zeros(4), tmp_path, dim).numpy()
    stddev = sigma * clip / batch
    assert accepts(moved, stddev)
    assert not accepts(moved, stddev * 2 / 3)
    assert not accepts(moved, stddev * 3 / 2)


def test_noise_is_gaussian_and_does_not_listen_to_seeds() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first = gaussian(50_000, 2.0)
    torch.manual_seed(1)
    np.random.seed(1)
    second = gaussian(50_000, 2.0)
    assert kstest(first / 2.0, "norm").pvalue > 1e-6
    assert abs(np.corrcoef(first, second)[0, 1]) < 6 / np.sqrt(50_000)


@pytest.mark.usefixtures("silent")
def test_each_record_counts_at_most_clip_norm(tmp_path: Path) -> None:
    x, y = torch.ones(1, 4) * 1e4, torch.tensor([1e4])
    moved = move(local(clip_norm=0.5, batch_size=2.0), x, y, tmp_path, 4)
    assert float(moved.norm()) == pytest.approx(0.5 / 2.0, rel=1e-4)


@pytest.mark.usefixtures("silent")
def test_clipping_is_a_record_at_a_time_not_of_the_mean(tmp_path: Path) -> None:
    x = torch.cat([torch.ones(1, 2) * 1e6, torch.tensor([[0.0, 1e-3]] * 3)])
    y = torch.tensor([1.0, 1.0, 1.0, 1.0])
    moved = move(local(batch_size=1.0), x, y, tmp_path, 2)
    expected = torch.ones(2) / 2**0.5 + torch.tensor([0.0, 3e-3])
    assert torch.allclose(moved, expected, atol=1e-5)


@pytest.mark.parametrize("records", [1, 10, 1000])
def test_the_denominator_does_not_tell_the_number_of_records(tmp_path: Path, records: int) -> None:
    dim = 5000
    plan = local(noise_multiplier=2.0, batch_size=7.0)
    moved = move(plan, torch.zeros(records, dim), torch.zeros(records), tmp_path, dim).numpy()
    assert accepts(moved, 2.0 / 7.0)


def test_an_empty_batch_adds_noise_and_is_charged(tmp_path: Path) -> None:
    dim = 5000
    moved = move(local(batch_size=1.0), torch.zeros(0, dim), torch.zeros(0), tmp_path, dim).numpy()
    assert accepts(moved, 1.0)
    book = ledger(tmp_path)
    assert [entry.what for entry in book.rows()] == ["open", "reserve", "settle"]
    book.close()


def test_poisson_sampling_has_the_rate_and_is_independent() -> None:
    counts = np.array([len(poisson_sample(1000, 0.2)) for _ in range(300)])
    assert abs(counts.mean() - 200) < 6 * np.sqrt(160 / 300)
    assert 0.6 < counts.var() / 160 < 1.6
    assert len(poisson_sample(50, 1.0)) == 50
    assert len(poisson_sample(0, 0.5)) == 0


def test_the_ledger_is_charged_before_records_are_read(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    seen: list[str] = []

    def read() -> tuple[Tensor, Tensor]:
        other = ledger(tmp_path)
        seen.extend(entry.what for entry in other.rows())
        other.close()
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        local().train_round(
            nn.Linear(2, 1), squared, read, optimizer=sgd, ledger=book, dataset="d", run="r", round=1, rng=RNG
        )
    assert seen == ["open", "reserve"]
    assert book.spent("d") > 0, "what was cut off stays charged"
    book.close()


def test_nothing_is_read_when_the_budget_says_no(tmp_path: Path) -> None:
    book = ledger(tmp_path, epsilon=0.5)

    def read() -> tuple[Tensor, Tensor]:
        raise AssertionError("records were read")

    with pytest.raises(BudgetExhausted, match="Nothing was read"):
        local().train_round(
            nn.Linear(2, 1), squared, read, optimizer=sgd, ledger=book, dataset="d", run="r", round=1, rng=RNG
        )
    assert book.rows() == ()
    book.close()


def test_a_private_round_needs_a_ledger_and_an_open_one_must_not_have_one(tmp_path: Path) -> None:
    def read() -> tuple[Tensor, Tensor]:
        raise AssertionError("records were read")

    with pytest.raises(LocalProtocolError, match="needs the ledger"):
        local().train_round(
            nn.Linear(2, 1), squared, read, optimizer=sgd, ledger=None, dataset="d", run="r", round=1, rng=RNG
        )
    book = ledger(tmp_path)
    with pytest.raises(LocalProtocolError, match="charges no ledger"):
        OpenPlan(1, 1.0, 1.0).train_round(
            nn.Linear(2, 1), squared, read, optimizer=sgd, ledger=book, dataset="d", run="r", round=1, rng=RNG
        )
    book.close()


def test_mode_off_depends_on_the_seed_alone() -> None:
    x, y = torch.randn(40, 3, generator=torch.Generator().manual_seed(1)), torch.ones(40)

    def trained(seed: int) -> Tensor:
        model = nn.Linear(3, 1)
        nn.init.constant_(model.weight, 0.1)
        nn.init.zeros_(model.bias)
        OpenPlan(5, 0.3, 12.0).train_round(
            model, squared, lambda: (x, y), optimizer=sgd, ledger=None, dataset="d", run="r", round=1,
            rng=np.random.default_rng(seed),
        )  # fmt: skip
        return model.weight.detach()

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_training_leaves_no_hooks_behind(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    book = ledger(tmp_path)
    data = (torch.ones(3, 2), torch.ones(3))
    for number in (1, 2, 3):
        local().train_round(
            model, squared, lambda: data, optimizer=sgd, ledger=book, dataset="d", run="r", round=number, rng=RNG
        )
    book.close()
    assert not model._forward_hooks
    assert not model._backward_hooks
    assert set(vars(model.weight)) == set()


def test_a_run_is_calibrated_to_its_budget() -> None:
    for overrides in (["training.sampling_rate=1"], ["training.sampling_rate=0.1"], ["privacy.epsilon=0.5"]):
        config = load_config(None, overrides)
        plan = plan_for(config)
        spent = plan.epsilon(config.training.rounds)
        assert spent is not None
        assert 0.99 * config.privacy.epsilon < spent <= config.privacy.epsilon


def bad(overrides: list[str]) -> Callable[[], RunConfig]:
    return lambda: load_config(None, overrides)


def test_a_noise_multiplier_that_does_not_fit_the_budget_is_refused_with_one_that_does() -> None:
    with pytest.raises(ConfigError, match=r"noise_multiplier=0\.5 spends .* use at least (\d+\.\d+)") as caught:
        plan_for(load_config(None, ["privacy.noise_multiplier=0.5"]))
    enough = str(caught.value).split("at least ")[1].split(",")[0]
    assert plan_for(load_config(None, [f"privacy.noise_multiplier={enough}"])).noise_multiplier == float(enough)


def test_a_budget_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match="too small"):
        plan_for(load_config(None, ["privacy.epsilon=1e-7"]))


@pytest.mark.usefixtures("silent")
def test_opacus_path_equals_clipping_by_hand_for_a_hybrid(tmp_path: Path) -> None:
    """One step without noise to speak of, against one-record-at-a-time gradients of the whole hybrid."""
    from qfed.config import ModelConfig
    from qfed.models import build, loss

    model = build(ModelConfig(wires=3, layers=1), 5, 2, seed=3)
    x = torch.rand(6, 5, generator=torch.Generator().manual_seed(2)) * 2 - 1
    y = torch.tensor([0, 1, 0, 1, 1, 0])
    total = [torch.zeros_like(p) for p in model.parameters()]
    for i in range(6):
        model.zero_grad()
        loss("classification")(model(x[i : i + 1]), y[i : i + 1]).sum().backward()  # type: ignore[no-untyped-call]
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        norm = torch.cat([g.ravel() for g in grads]).norm()
        for into, g in zip(total, grads, strict=True):
            into += g * min(1.0, 0.2 / float(norm))
    before = [p.detach().clone() for p in model.parameters()]
    model.zero_grad()
    book = ledger(tmp_path)
    plan = local(clip_norm=0.2, batch_size=6.0)
    plan.train_round(
        model,
        loss("classification"),
        lambda: (x, y),
        optimizer=sgd,
        ledger=book,
        dataset="d",
        run="r",
        round=1,
        rng=RNG,
    )
    book.close()
    for old, new, summed in zip(before, model.parameters(), total, strict=True):
        assert torch.allclose(old - new.detach(), summed / 6.0, atol=1e-6)
    circuit = [s for (name, _), s in zip(model.named_parameters(), total, strict=True) if name.startswith("circuit")]
    assert all(float(s.abs().max()) > 1e-4 for s in circuit), "the circuit learns too"


def trained(model: nn.Module, book: Ledger, read: Callable[[], tuple[Tensor, Tensor]], plan: LocalPlan) -> Receipt:
    return plan.train_round(
        model, squared, read, optimizer=sgd, ledger=book, dataset="d", run="r", round=1, rng=None
    )  # fmt: skip


def never() -> tuple[Tensor, Tensor]:
    raise AssertionError("records were read")


def test_a_round_asked_for_twice_gives_the_first_answer_without_reading(tmp_path: Path) -> None:
    first, again, other = nn.Linear(3, 1), nn.Linear(3, 1), nn.Linear(3, 1)
    again.load_state_dict(first.state_dict())
    book = ledger(tmp_path)
    receipt = trained(first, book, lambda: (torch.ones(4, 3), torch.ones(4)), local())
    assert receipt == Receipt(1, book.spent("d"), replayed=False)
    assert trained(again, book, never, local()) == Receipt(1, book.spent("d"), replayed=True)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    with pytest.raises(PolicyRefused, match="another request"):
        trained(other, book, never, local())
    assert len(book.rows()) == 3
    book.close()


def test_a_cut_off_round_is_refused_and_stays_charged(tmp_path: Path) -> None:
    model, book = nn.Linear(3, 1), ledger(tmp_path)

    def broken() -> tuple[Tensor, Tensor]:
        raise OSError("disk on fire")

    with pytest.raises(OSError, match="on fire"):
        trained(model, book, broken, local())
    spent = book.spent("d")
    with pytest.raises(PolicyRefused, match="cut off"):
        trained(model, book, never, local())
    assert book.spent("d") == spent > 0
    book.close()


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e38])
def test_a_record_that_is_not_finite_moves_no_more_than_any_other(tmp_path: Path, poison: float) -> None:
    x = torch.tensor([[poison, 1.0], [0.0, 1e-3]])
    moved = move(local(batch_size=1.0), x, torch.tensor([1.0, 1.0]), tmp_path, 2)
    assert bool(torch.isfinite(moved).all())
    assert float((moved - torch.tensor([0.0, 1e-3])).norm()) <= 1.0 + 1e-6


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1)), nn.Linear(2, 1).eval()]
)
def test_a_model_without_per_record_gradients_is_refused_before_any_charge(tmp_path: Path, model: nn.Module) -> None:
    book = ledger(tmp_path)
    with pytest.raises(ConfigError, match="records do not mix, in training mode"):
        trained(model, book, never, local())
    assert book.rows() == ()
    book.close()


def test_an_unused_parameter_is_named(tmp_path: Path) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(2, 1), nn.Linear(7, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x)
            return out

    book = ledger(tmp_path)
    with pytest.raises(ConfigError, match=r"shape \(1, 7\) got no gradient"):
        trained(Half(), book, lambda: (torch.ones(4, 2), torch.ones(4)), local())
    book.close()


def test_a_loss_that_is_averaged_already_is_refused(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    with pytest.raises(ShapeError, match="one value a record"):
        local().train_round(
            nn.Linear(2, 1), lambda out, y: squared(out, y).mean(), lambda: (torch.ones(4, 2), torch.ones(4)),
            optimizer=sgd, ledger=book, dataset="d", run="r", round=1, rng=None,
        )  # fmt: skip
    book.close()


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("records", [3, 30])
def test_a_step_divides_by_the_configured_batch_size_alone(tmp_path: Path, records: int) -> None:
    # Each record pulls with gradient -x y = -0.01, far below C: the step is their sum over the public denominator.
    plan = local(batch_size=50.0, clip_norm=5.0)
    moved = move(plan, torch.full((records, 1), 0.1), torch.full((records,), 0.1), tmp_path, 1)
    assert float(moved[0]) == pytest.approx(records * 0.01 / 50.0, rel=1e-4)


def test_noise_is_new_in_every_step_and_round(tmp_path: Path) -> None:
    dim, book = 4000, ledger(tmp_path)
    moves = []
    for number in (1, 2):
        model = nn.Linear(dim, 1, bias=False)
        nn.init.zeros_(model.weight)
        torch.manual_seed(0)
        local().train_round(
            model, squared, lambda: (torch.zeros(1, dim), torch.zeros(1)), optimizer=sgd, ledger=book, dataset="d",
            run="r", round=number, rng=np.random.default_rng(0),
        )  # fmt: skip
        moves.append(model.weight.detach().ravel().numpy())
    book.close()
    assert abs(np.corrcoef(moves)[0, 1]) < 6 / np.sqrt(dim)


def test_the_whole_run_fits_its_own_ledger_and_reports_what_it_spent(tmp_path: Path) -> None:
    for number, rate in enumerate((1, 0.25)):
        config = load_config(None, ["privacy.mode=local", f"training.sampling_rate={rate}", "training.rounds=4"])
        plan = plan_for(config)
        book = Ledger(tmp_path / f"{number}.db", Limits(config.privacy.epsilon, config.privacy.delta))
        told = []
        for round in range(1, 5):
            receipt = plan.train_round(
                nn.Linear(2, 1), squared, lambda: (torch.ones(9, 2), torch.ones(9)), optimizer=sgd, ledger=book,
                dataset="d", run="r", round=round, rng=None,
            )  # fmt: skip
            assert receipt.epsilon is not None
            told.append(receipt.epsilon)
        assert told == [plan.epsilon(round) for round in range(1, 5)]
        assert sorted(set(told)) == told
        assert plan.describe()["epsilon"] == told[-1]
        assert 0.99 * config.privacy.epsilon < told[-1] <= config.privacy.epsilon
        book.close()
