"""The golden vectors: what the code does today is what it did when they were written."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qfed.secagg import PublicIdentity, SecAggRefused, messages
from qfed.secagg.federation import Federation
from qfed.secagg.statement import NOTHING, Place, open_reply

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((FOLDER / "secagg.json").read_text())


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_secagg", FOLDER / "make_secagg.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_writes_what_is_in_the_file() -> None:
    made = json.loads(json.dumps(script().constant()))
    assert {key: VECTORS[key] for key in made} == made


@pytest.mark.parametrize("vector", VECTORS["messages"]["good"], ids=lambda v: v["parser"])
def test_good_messages_parse_to_their_fields_and_back(vector: dict[str, Any]) -> None:
    parser = getattr(messages, vector["parser"])
    assert vector["kind"] == parser.KIND
    message = parser.decode(bytes.fromhex(vector["bytes"]))
    got = {f.name: script().plain(getattr(message, f.name)) for f in fields(message)}
    assert json.loads(json.dumps(got)) == vector["fields"]
    assert message.encode().hex() == vector["bytes"]


@pytest.mark.parametrize("vector", VECTORS["messages"]["bad"], ids=lambda v: v["name"])
def test_bad_messages_are_refused_for_their_reason(vector: dict[str, str]) -> None:
    with pytest.raises(SecAggRefused) as refusal:
        getattr(messages, vector["parser"]).decode(bytes.fromhex(vector["bytes"]))
    assert refusal.value.reason == vector["reason"]


class OneSite:
    """As much of a federation as `open_reply` asks for."""

    def site(self, name: str) -> PublicIdentity:
        assert name == "golden-site"
        return PublicIdentity.from_dict(VECTORS["signed"]["public"])


def opened(data: str) -> bytes:
    federation: Federation = OneSite()  # type: ignore[assignment]
    place = Place(bytes(range(32)), "golden-run", 7)
    body, _ = open_reply(federation, place, 1, NOTHING, bytes.fromhex(data), "golden-site")
    return bytes(body)


def test_the_signed_bundle_is_accepted() -> None:
    assert messages.HelloBody.decode(opened(VECTORS["signed"]["good"])).commitment == bytes(range(64, 96))


@pytest.mark.parametrize("vector", VECTORS["signed"]["bad"], ids=lambda v: v["name"])
def test_bad_bundles_are_refused_for_their_reason(vector: dict[str, str]) -> None:
    with pytest.raises(SecAggRefused) as refusal:
        opened(vector["bytes"])
    assert refusal.value.reason == vector["reason"]
