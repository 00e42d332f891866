"""A model's card: complete, readable, and any change to it or to the model is found."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from small_runs import small

from qfed import simulate
from qfed.errors import ConfigError
from qfed.federation.card import CARD, SIGNATURES, TEXT, Card, read_card, sign, verify, write_card
from qfed.federation.contribution import policy_of
from qfed.report import read_result
from qfed.secagg import Federation, Identity

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SIGNER = Identity.generate("aggregator")
COORDINATOR = Identity.generate("coordinator")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card") / "run"
    simulate(small("data.source=breast_cancer"), out=folder)
    return folder


@pytest.fixture
def deployed(simulated: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(simulated, tmp_path / "run"))
    result = read_result(folder)
    sites = [Identity.generate(name).public for name in "abcde"]
    federation = Federation.create(policy_of(result.config, "study"), sites, COORDINATOR)
    write_card(folder, result, CREATED, federation=federation, signer=SIGNER)
    return folder


def test_a_simulation_writes_a_card_that_holds_and_that_nobody_vouches_for(simulated: Path) -> None:
    found = verify(simulated)
    result = read_result(simulated)
    assert found.signers == ()
    assert found.card.provenance.origin == "simulation"
    assert found.card.final == result.final
    assert found.card.privacy == result.privacy
    assert set(found.card.files) == {"model.npz", "model.json", "config.toml"}
    text = (simulated / TEXT).read_text()
    assert "one machine played all sites" in text
    for value in (result.run, f"{result.final.score:.4g}", "Intended use", "Not covered", "mean radius", "malignant"):
        assert value in text


def test_a_deployed_runs_card_names_federation_and_signer(deployed: Path) -> None:
    found = verify(deployed)
    about = found.card.provenance
    assert [public.fingerprint() for public in found.signers] == [SIGNER.fingerprint()]
    assert (about.origin, about.federation, about.federation_version) == ("deployed", "study", 1)
    assert about.coordinator == COORDINATOR.fingerprint()
    assert about.created == "2026-01-02T03:04:05Z"
    assert COORDINATOR.fingerprint() in (deployed / TEXT).read_text()
    assert Card.model_validate_json(found.card.model_dump_json()) == found.card


@pytest.mark.parametrize("name", ["model.npz", "config.toml", TEXT, CARD, SIGNATURES])
def test_a_changed_byte_is_found(deployed: Path, name: str) -> None:
    content = bytearray((deployed / name).read_bytes())
    content[len(content) // 2] ^= 1
    (deployed / name).write_bytes(content)
    with pytest.raises(ConfigError):
        verify(deployed)


def test_a_better_score_written_in_everywhere_breaks_the_signature(deployed: Path) -> None:
    card = read_card(deployed)
    better = card.model_copy(update={"final": card.final.model_copy(update={"score": 1.0})})
    (deployed / CARD).write_text(better.model_dump_json(indent=1) + "\n")
    from qfed.federation.cardtext import render

    (deployed / TEXT).write_text(render(better))
    with pytest.raises(ConfigError, match="signature of aggregator"):
        verify(deployed)


def test_missing_files_are_named(deployed: Path) -> None:
    for name in ("model.npz", TEXT, CARD):
        content = (deployed / name).read_bytes()
        (deployed / name).unlink()
        with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
            verify(deployed)
        (deployed / name).write_bytes(content)
    (deployed / SIGNATURES).write_text('{"signer": 1}')
    with pytest.raises(ConfigError, match="no signatures"):
        verify(deployed)
    (deployed / CARD).write_text("{}")
    with pytest.raises(ConfigError, match="no card of this qfed"):
        read_card(deployed)


def test_others_add_their_signature_and_a_repeated_one_replaces(deployed: Path) -> None:
    sign(deployed, COORDINATOR)
    sign(deployed, COORDINATOR)
    assert [public.name for public in verify(deployed).signers] == ["aggregator", "coordinator"]
    assert len(json.loads((deployed / SIGNATURES).read_text())) == 2


def test_no_secret_and_no_path_is_in_a_card(deployed: Path) -> None:
    for name in (CARD, TEXT, SIGNATURES):
        text = (deployed / name).read_text()
        assert str(deployed) not in text
        assert SIGNER.key.ed25519.hex() not in text
