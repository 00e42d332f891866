"""deployments/: linted by the tools of each kind, samples loaded, and the promises of the README held by every file."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate

from qfed.config import load_config, load_server, load_site
from qfed_server.dashboard.metrics import FAMILIES

PLACE = Path(__file__).parents[3] / "deployments"
BIN = Path(sys.executable).parent
UNITS = sorted((PLACE / "systemd").glob("*.service"))
CONTAINERS = sorted((PLACE / "containers").glob("*.Dockerfile"))
MANIFESTS = sorted(file for file in (PLACE / "kubernetes").rglob("*.yaml") if file.name != "kustomization.yaml")
KUBERNETES = "1.32"
OF_OTHERS = {"PodMonitor"}
"""Kinds that are not Kubernetes' own: the Prometheus Operator's."""


def run(*command: str | Path, cwd: Path = PLACE) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on the PATH, and pip cannot install it")
    return found


def documents(*files: Path) -> list[dict[str, Any]]:
    return [tree for file in files for tree in yaml.safe_load_all(file.read_text(encoding="utf-8")) if tree]


def pods(trees: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [tree["spec"]["template"]["spec"] for tree in trees if tree["kind"] in {"StatefulSet", "Deployment"}]


# -- containers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", CONTAINERS, ids=lambda file: file.name)
def test_container_files_pass_hadolint(file: Path) -> None:
    run(BIN / "hadolint", "--failure-threshold", "info", file)


@pytest.mark.parametrize("file", CONTAINERS, ids=lambda file: file.name)
def test_images_are_small_unprivileged_and_without_secrets(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    stages = text.split("\nFROM ")
    assert len(stages) == 3, "built in one stage, run in another"
    assert "slim" in stages[0]
    last = stages[-1]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert last.index("USER 10001") < last.index("ENTRYPOINT")
    assert "pip install" not in last, "no installer's leftovers in the image"
    assert "HEALTHCHECK" in last
    assert not re.search(r"https?://", text), "no host of a registry"
    assert not re.search(r"^ADD ", text, re.MULTILINE)
    ignored = file.with_name(file.name + ".dockerignore").read_text(encoding="utf-8").split()
    assert ignored[ignored.index("*")] == "*"
    copied = {
        Path(part).parts[0]
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
        for part in line.split()
    }
    assert copied == {"pyproject.toml", "README.md", "LICENSE", "qfed", "server", "client", "deployments"}
    assert "**/*.key" in ignored
    for name in copied - {"deployments"}:
        assert f"!{name}" in ignored, f"{name} is copied and must reach the builder"
        assert (PLACE.parent / name).exists()


# -- compose ---------------------------------------------------------------------------------------------------------


def test_every_service_of_the_compose_file_is_hardened() -> None:
    tree = yaml.safe_load((PLACE / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    assert set(tree["services"]) == {"server", "dashboard", "site-a", "site-b", "site-c"}
    for name, service in tree["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"] == "10001:10001", name
        assert service["restart"] == "unless-stopped", name
        assert service["tmpfs"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert not {"privileged", "network_mode", "pid", "cap_add"} & set(service), name
        if "build" in service:
            assert (PLACE.parent / service["build"]["dockerfile"]).exists()
    assert tree["networks"]["federation"]["internal"] is True
    assert all(tree["services"][f"site-{x}"]["networks"] == ["federation"] for x in "abc")
    assert tree["services"]["dashboard"]["ports"] == ["127.0.0.1:8765:8765"]


def test_docker_takes_the_compose_file() -> None:
    docker = tool("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True, timeout=60).returncode:
        pytest.skip("this docker has no compose plugin, and pip cannot install it")
    run(docker, "compose", "-f", PLACE / "compose" / "compose.yaml", "config", "--quiet")


# -- kubernetes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", documents(*MANIFESTS), ids=lambda tree: f"{tree['kind']}-{tree['metadata']['name']}")
def test_manifests_fit_the_schemas_of_kubernetes(tree: dict[str, Any]) -> None:
    if tree["kind"] in OF_OTHERS:
        assert tree["apiVersion"] == "monitoring.coreos.com/v1"
        return
    validate(tree, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", ["namespace", "server", "site", "monitoring", "example"])
def test_kustomize_builds_what_fits_the_schemas(name: str) -> None:
    built = run(tool("kubectl"), "kustomize", PLACE / "kubernetes" / name)
    trees = [tree for tree in yaml.safe_load_all(built) if tree]
    assert trees
    for tree in trees:
        if tree["kind"] not in OF_OTHERS:
            validate(tree, KUBERNETES, strict=True)
        if tree["kind"] in {"StatefulSet", "Deployment"}:
            labels = tree["spec"]["template"]["metadata"]["labels"]
            assert tree["spec"]["selector"]["matchLabels"].items() <= labels.items()
            for other in trees:
                if other["kind"] == "NetworkPolicy" and other["metadata"]["name"] == tree["metadata"]["name"]:
                    assert other["spec"]["podSelector"]["matchLabels"], "it would hold for every pod"
                    assert other["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


def test_a_site_may_ask_the_clusters_name_server() -> None:
    built = run(tool("kubectl"), "kustomize", PLACE / "kubernetes" / "site")
    (policy,) = (tree for tree in yaml.safe_load_all(built) if tree["kind"] == "NetworkPolicy")
    selectors = [to["podSelector"]["matchLabels"] for rule in policy["spec"]["egress"] for to in rule.get("to", ())]
    assert selectors == [{"k8s-app": "kube-dns"}], "labels of ours on it would shut every name out"


def test_pods_are_restricted_as_pod_security_has_it() -> None:
    found = pods(documents(*MANIFESTS))
    assert len(found) == 2
    for pod in found:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*pod["initContainers"], *pod["containers"]):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
        assert all(set(volume) & {"secret", "emptyDir", "persistentVolumeClaim"} for volume in pod["volumes"])
    (namespace,) = (tree for tree in documents(*MANIFESTS) if tree["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


# -- systemd ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_pass_systemd(unit: Path, tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text(encoding="utf-8").replace("/opt/qfed/bin/qfed", "/bin/true"), encoding="utf-8")
    done = subprocess.run([analyze, "verify", "--man=no", copy], capture_output=True, text=True, timeout=120)
    complaints = [line for line in done.stderr.splitlines() if tmp_path.name in line or unit.stem.rstrip("@") in line]
    assert done.returncode == 0, done.stderr
    assert complaints == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_as_hardened_as_the_readme_says(unit: Path) -> None:
    told = run(tool("systemd-analyze"), "security", "--offline=true", "--no-pager", f"./systemd/{unit.name}")
    score = float(re.findall(r"exposure level for \S+: ([\d.]+)", told)[0])
    readme = (PLACE / "README.md").read_text(encoding="utf-8")
    (said,) = re.findall(rf"\| {re.escape(unit.name)} \| ([\d.]+) ", readme)
    assert score <= 1.5
    assert abs(score - float(said)) <= 0.3, "systemd's weights differ a little from version to version"


# -- samples, Prometheus, documents ----------------------------------------------------------------------------------


def test_samples_load() -> None:
    samples = PLACE / "samples"
    server, site, run_ = (
        load_server(samples / "server.toml"),
        load_site(samples / "site.toml"),
        load_config(samples / "run.toml"),
    )
    assert site.server is not None
    assert site.server.address == server.address, "the samples belong together"
    assert run_.privacy.epsilon <= site.policy.epsilon
    assert run_.training.rounds <= (site.policy.most_rounds or run_.training.rounds)
    columns = {column.name for column in run_.data.columns}
    assert site.data is not None
    assert set(site.data.rename.values()) <= columns
    assert set(site.data.recode) <= columns
    assert {path.name for path in samples.iterdir()} == {
        "prometheus.yml",
        "qfed-alerts.yml",
        "run.toml",
        "server.toml",
        "site.toml",
    }, "a new sample needs a line in this test"


def test_all_yaml_is_clean() -> None:
    rules = (
        "{extends: default, rules: {line-length: {max: 180}, document-start: disable, truthy: {check-keys: false}, "
        "braces: {max-spaces-inside: 1}, comments: {min-spaces-from-content: 1}}}"
    )
    run(BIN / "yamllint", "--strict", "-d", rules, PLACE)


def test_alerts_ask_for_metrics_that_exist() -> None:
    known = {name + ("_total" if kind == "counter" else "") for name, (kind, _, _) in FAMILIES.items()}
    (tree,) = documents(PLACE / "samples" / "qfed-alerts.yml")
    rules = [rule for group in tree["groups"] for rule in group["rules"]]
    assert len(rules) >= 5
    for rule in rules:
        used = set(re.findall(r"\bqfed_\w+", rule["expr"]))
        assert used, rule["alert"]
        assert used <= known, rule["alert"]


def test_prometheus_takes_its_configuration() -> None:
    promtool = tool("promtool")
    run(promtool, "check", "config", "--syntax-only", PLACE / "samples" / "prometheus.yml")
    run(promtool, "check", "rules", PLACE / "samples" / "qfed-alerts.yml")


def test_alerts_fire_when_they_must_and_not_before() -> None:
    run(tool("promtool"), "test", "rules", Path(__file__).parent / "alerts.yml")
    rules = [
        rule["alert"]
        for tree in documents(PLACE / "samples" / "qfed-alerts.yml")
        for rule in tree["groups"][0]["rules"]
    ]
    (tests,) = documents(Path(__file__).parent / "alerts.yml")
    fired = {case["alertname"] for test in tests["tests"] for case in test["alert_rule_test"] if "exp_alerts" in case}
    assert fired == set(rules), "every alert is seen firing"


def test_commands_of_the_documents_exist() -> None:
    import typer.main

    from qfed.cli.app import app

    root = typer.main.get_command(app)
    lines = [
        line
        for file in (*PLACE.rglob("*.md"), *UNITS, PLACE / "compose" / "compose.yaml", *(PLACE / "samples").iterdir())
        for line in re.findall(
            r"(?:^|[`/ ])qfed ((?:[a-z]+ ?)+)((?:--[a-z-]+|[^\n`])*)", file.read_text(encoding="utf-8")
        )
    ]
    checked = 0
    for words, rest in lines:
        command: Any = root
        for word in words.split():
            if word not in getattr(command, "commands", {}):
                break
            command, checked = command.commands[word], checked + 1
        if command is root:
            continue
        known = {option for parameter in command.params for option in parameter.opts}
        for option in re.findall(r"(?<!\S)--[a-z-]+", rest):
            assert option in known | {"--help"}, f"qfed {words}{rest}"
    assert checked >= 12
