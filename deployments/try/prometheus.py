"""A real Prometheus scrapes a real dashboard and answers every question of the Grafana dashboard and the alert rules.

    python deployments/try/prometheus.py DIR      DIR: the data folder of a running `qfed server`

Needs `prometheus` on the PATH (2.42 was tried) and `qfed` beside this Python. Starts `qfed dashboard` and Prometheus
with samples/prometheus.yml on free ports of loopback, scraping each second into a temporary folder, prints what each
expression gave, and ends both. Exit status 1 when an expression is refused, or has no data and OCCASIONAL does not say
why.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PLACE = Path(__file__).parents[1]
PATIENCE = 120.0
SCRAPES = 5.0
"""Seconds of scraping before the questions, so that a rate has its points."""
OCCASIONAL = ("qfed_run_drops_total", "qfed_site_epsilon", 'metric="accuracy"', 'metric="rmse"')
"""Series that may rightly be missing: no site has dropped out; a run has one score, by its target."""


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str, **query: str) -> Any:
    """The JSON at a URL, a refused question's too; OSError while Prometheus is not ready."""
    try:
        with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(query)}", timeout=20) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code not in (400, 422):
            raise
        return json.load(error)


def until(what: str, true: Callable[[], Any], process: subprocess.Popen[bytes], log: Path) -> Any:
    """Wait until it is so; a process that ended meanwhile is told with what it said."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            if found := true():
                return found
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"waited in vain for {what}; it said:\n{log.read_text(errors='replace')[-2000:]}")


@contextmanager
def running(log: Path, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    with log.open("wb") as said:
        process = subprocess.Popen([str(part) for part in command], stdout=said, stderr=said)  # noqa: S603
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def settings(data: Path, dashboard: int) -> str:
    """samples/prometheus.yml with this dashboard's port, token and rules, and a scrape each second."""
    text = (PLACE / "samples" / "prometheus.yml").read_text(encoding="utf-8")
    for old, new in (
        ("scrape_interval: 30s", "scrape_interval: 1s\n  evaluation_interval: 1s"),
        ("/etc/prometheus/qfed-metrics.token", str(data / "metrics.token")),
        ("127.0.0.1:8765", f"127.0.0.1:{dashboard}"),
        ("- qfed-alerts.yml", f"- {PLACE / 'samples' / 'qfed-alerts.yml'}"),
    ):
        if old not in text:
            raise SystemExit(f"samples/prometheus.yml no longer says {old!r}")
        text = text.replace(old, new)
    return text


def questions() -> list[tuple[str, str]]:
    """(panel, expression) of the Grafana dashboard, its variables as "All" has them; its variables' own questions."""
    tree = json.loads((PLACE / "grafana" / "qfed.json").read_text(encoding="utf-8"))
    found = [
        (panel["title"], re.sub(r"\$(run|site)\b", ".*", target["expr"]).replace("$__rate_interval", "15s"))
        for panel in tree["panels"]
        for target in panel.get("targets", ())
    ]
    for variable in tree["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.findall(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])[0]
            found.append((f"choice of {label}", f"count by ({label}) ({series})"))
    return found


def ask(api: str) -> bool:
    """Print what every expression gives; whether all is well."""
    well = True
    for panel, expression in questions():
        told = get(f"{api}/query", query=expression)
        series = told["data"]["result"] if told["status"] == "success" else []
        said = ", ".join(f"{float(one['value'][1]):.4g}" for one in series[:4]) or told.get("error", "no data")
        print(f"{panel:24} {len(series):3} series  {said}")
        well &= bool(series) or (told["status"] == "success" and any(part in expression for part in OCCASIONAL))
    for group in get(f"{api}/rules")["data"]["groups"]:
        for rule in group["rules"]:
            print(f"alert {rule['name']:24} {rule['health']}, {rule['state']}")
            well &= rule["health"] == "ok"
    return well


def main(folder: str) -> int:
    """0 when every expression was answered."""
    data, dashboard, port = Path(folder).resolve(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        log = place / "dashboard.log"
        qfed = Path(sys.executable).parent / "qfed"
        with running(log, qfed, "dashboard", "--data", data, "--port", str(dashboard)) as board:
            until(
                "the dashboard",
                lambda: socket.create_connection(("127.0.0.1", dashboard), 5).close() or True,
                board,
                log,
            )
            (place / "prometheus.yml").write_text(settings(data, dashboard), encoding="utf-8")
            log, api = place / "prometheus.log", f"http://127.0.0.1:{port}/api/v1"
            options = (f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/data")
            with running(log, "prometheus", *options, f"--web.listen-address=127.0.0.1:{port}") as scraper:
                seen = lambda: get(f"{api}/query", query="up == 1").get("data", {}).get("result")  # noqa: E731
                until("a first scrape", seen, scraper, log)
                time.sleep(SCRAPES)
                return 0 if ask(api) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if len(sys.argv) == 2 else __doc__)
