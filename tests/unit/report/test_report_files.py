"""result.json: what is written is read back, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from qfed.errors import ConfigError
from qfed.federation.result import RunResult, result_schema
from qfed.report import read_result, write_result

Make = Callable[..., RunResult]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"private": False, "secagg": False},
        {"task": "regression"},
        {"comparisons": ()},
        {"sites": 1000},
        {"kind": "twin"},
    ],
    ids=str,
)
def test_what_is_written_is_read_back(make_result: Make, tmp_path: Path, changes: dict[str, object]) -> None:
    result = make_result(**changes)
    path = write_result(result, tmp_path)
    assert path == tmp_path / "result.json"
    assert read_result(path) == result
    assert read_result(tmp_path) == result
    jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), result_schema())


def test_the_file_is_for_people_too(make_result: Make, tmp_path: Path) -> None:
    text = write_result(make_result(), tmp_path).read_text(encoding="utf-8")
    assert text.startswith('{\n  "format": "qfed.result/1",\n  "status": "completed",\n')
    assert text.endswith("}\n")
    assert list(json.loads(text)) == list(RunResult.model_fields)
    assert '"epsilon": 2.9961,' in text


def test_same_result_same_bytes_and_no_draft_left(make_result: Make, tmp_path: Path) -> None:
    first = write_result(make_result(), tmp_path).read_bytes()
    assert write_result(make_result(), tmp_path).read_bytes() == first
    assert os.listdir(tmp_path) == ["result.json"]


def test_every_digit_of_a_float_is_kept(make_result: Make, tmp_path: Path) -> None:
    seconds = {"total": 0.1 + 0.2, "small": 5e-324, "large": 1.7976931348623157e308}
    assert read_result(write_result(make_result(seconds=seconds), tmp_path)).seconds == seconds


def test_a_crash_leaves_the_old_file(make_result: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write_result(make_result(), tmp_path).read_bytes()

    def crash(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        write_result(make_result(sites=5), tmp_path)
    assert (tmp_path / "result.json").read_bytes() == old
    assert os.listdir(tmp_path) == ["result.json"]


def test_the_file_is_as_readable_as_the_umask_says(make_result: Make, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = write_result(make_result(), tmp_path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_json_cannot_hold_is_named(make_result: Make, tmp_path: Path, value: float) -> None:
    result = make_result()
    broken = result.model_copy(update={"final": result.final.model_copy(update={"loss": value})})
    with pytest.raises(ConfigError, match=f"final.loss={value}"):
        write_result(broken, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there(make_result: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.* does not exist"):
        write_result(make_result(), tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"\xff\xfe\x00", "is no JSON"),
        (b'{"format": NaN}', "NaN is not a JSON number"),
        (b"[" * 100_000, "is no JSON"),
        (b"[]", "expected format='qfed.result/1', got format=None"),
        (b'{"format": "qfed.result/2"}', "got format='qfed.result/2'"),
        (b'{"format": "qfed.result/1"}', "does not fit the schema of qfed.result/1: status: Field required"),
    ],
    ids=["empty", "cut", "binary", "nan", "deep", "list", "future", "hollow"],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_result(path)
    assert str(path) in str(caught.value)


def test_a_changed_field_is_named(make_result: Make, tmp_path: Path) -> None:
    path = write_result(make_result(), tmp_path)
    tree = json.loads(path.read_text(encoding="utf-8"))
    tree["rounds"][3]["survivors"] = "many"
    tree["extra"] = 1
    path.write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"rounds\.3\.survivors: .*\(and 1 more\)"):
        read_result(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file.*name a result\.json"):
        read_result(tmp_path)
