"""/metrics: read back with Prometheus's own parser, every family present, figures those of the runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from dashboard_desk import NOW, Desk
from prometheus_client.parser import text_string_to_metric_families

from qfed_server.dashboard.metrics import FAMILIES, RECENT

Add = Callable[..., Path]
GRAFANA = Path(__file__).parents[3] / "deployments" / "grafana" / "qfed.json"


def scrape(desk: Desk) -> dict[str, dict[tuple[str, ...], float]]:
    """Sample name -> label values -> value."""
    client = desk.client(signed_in=False)
    token = (desk.data / "metrics.token").read_text().strip()
    answer = client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = FAMILIES[family.name][2]
            assert set(labels) == set(sample.labels)
            found.setdefault(sample.name, {})[tuple(sample.labels[label] for label in labels)] = sample.value
    return found


def certificate(file: Path, end: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(end - timedelta(days=400)).not_valid_after(end)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def test_figures_are_those_of_sites_and_runs(desk: Desk, run_of: Add) -> None:
    run_of("9f2c41d0", "running")
    run_of("deadbeef", "failed", failed=(3, 4))
    end = datetime.fromtimestamp(NOW + 90 * 86400, UTC)
    certificate(desk.data / "tls" / "server.crt", end)
    desk.client(signed_in=False).post("/login", data={"token": "wrong"})
    found = scrape(desk)
    run = ("9f2c41d0", "breast-cancer")
    assert found["qfed_server_up"] == {(): 1}
    assert found["qfed_sites"] == {("registered",): 0, ("online",): 4, ("offline",): 1}
    assert found["qfed_site_online"][("site-03",)] == 0
    assert found["qfed_site_last_seen_timestamp_seconds"][("site-03",)] == NOW - 200
    assert found["qfed_runs"][("running",)] == found["qfed_runs"][("failed",)] == 1
    assert found["qfed_run_rounds_done"][run] == 7
    assert found["qfed_run_rounds_planned"][run] == 12
    assert found["qfed_run_rounds_failed"][("deadbeef", "breast-cancer")] == 2
    assert 0.5 < found["qfed_run_score"][(*run, "accuracy")] < 1
    assert 0 < found["qfed_run_epsilon"][run] < found["qfed_run_epsilon_budget"][run] == 3
    assert found["qfed_site_epsilon"] == {("site-01",): 4.5}, "the one that tells it"
    assert found["qfed_site_epsilon_budget"] == {("site-01",): 10}
    assert found["qfed_run_drops_total"][(*run, "site-03")] == 1
    assert found["qfed_run_bytes_total"][(*run, "up")] == 11 * 1_937 * 5
    assert found["qfed_run_phase_seconds_total"][(*run, "upload")] == pytest.approx(7 * 0.21)
    assert found["qfed_denied_requests_total"] == {("path",): 3, ("size",): 0}
    assert found["qfed_sign_ins_total"] == {("accepted",): 0, ("refused",): 1}
    assert found["qfed_certificate_expiry_timestamp_seconds"] == {("server.crt",): end.timestamp()}
    assert 0 < found["qfed_disk_free_bytes"][()] <= found["qfed_disk_size_bytes"][()]
    names = {name + ("_total" if kind == "counter" else "") for name, (kind, _, _) in FAMILIES.items()}
    assert set(found) == names, "every family has a sample here, and there is no other"


def test_while_the_server_is_away_no_site_is_told(desk: Desk) -> None:
    desk.away = True
    found = scrape(desk)
    assert found["qfed_server_up"] == {(): 0}
    assert "qfed_sites" not in found
    assert "qfed_disk_free_bytes" in found


def test_old_runs_fall_out_of_the_labels(desk: Desk, run_of: Add) -> None:
    for i in range(RECENT + 2):
        run_of(f"run{i:02d}", "failed", done=1)
    run_of("current", "running", done=1)
    assert len(scrape(desk)["qfed_run_rounds_done"]) == RECENT + 1


def test_every_query_of_the_grafana_dashboard_uses_what_exists() -> None:
    board = json.loads(GRAFANA.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    queries += [v["query"]["query"] for v in board["templating"]["list"] if v["type"] == "query"]
    assert len(queries) >= 15
    known = {name + ("_total" if kind == "counter" else ""): labels for name, (kind, _, labels) in FAMILIES.items()}
    used = set()
    for query in queries:
        metrics = re.findall(r"\bqfed_\w+", query)
        assert metrics, query
        for metric in metrics:
            assert metric in known, f"{metric} in {query!r}"
            used.add(metric)
        labels = {label for metric in metrics for label in known[metric]}
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query) + grouped(query):
            assert label in labels, f"{label} in {query!r}"
    assert len(used) > len(known) / 2, "most of what is told is shown"


def grouped(query: str) -> list[str]:
    return [
        name.strip() for inside in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", query) for name in inside.split(",")
    ]


def test_the_grafana_dashboard_is_whole() -> None:
    board: dict[str, Any] = json.loads(GRAFANA.read_text(encoding="utf-8"))
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["description"]
