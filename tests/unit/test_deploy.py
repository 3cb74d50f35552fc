import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.operate.metrics import Metrics
from service.roles import Role
from service.settings import Settings, parse
from tests.conftest import REPO_ROOT

DEPLOY = REPO_ROOT / "deploy"


def test_the_node_of_the_compose_file_has_a_valid_configuration_that_fits_its_archive() -> None:
    settings = parse(tomllib.loads((DEPLOY / "compose" / "wetread.toml").read_text()), "wetread.toml")
    orthanc = json.loads((DEPLOY / "compose" / "orthanc.json").read_text())
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]

    destination = settings.destination_for(orthanc["DicomAet"])
    assert destination is not None
    assert (destination.host, destination.port) == ("orthanc", orthanc["DicomPort"])
    assert destination.host in services
    node = orthanc["DicomModalities"]["wetread"]
    assert (node["AET"], node["Host"], node["Port"]) == (settings.node.ae_title, "wetread", settings.node.port)
    assert node["Host"] in services


def test_the_compose_file_publishes_ports_on_the_loopback_interface_only() -> None:
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]

    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_file_that_the_compose_file_mounts_exists() -> None:
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]

    mounts = [volume.split(":")[0] for service in services.values() for volume in service["volumes"]]
    files = [mount for mount in mounts if mount.startswith(".")]
    assert files
    assert all((DEPLOY / "compose" / file).is_file() for file in files)


def services_of_several() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose" / "several.yaml").read_text())["services"])


def kubernetes(folder: str = "base") -> list[dict[str, Any]]:
    files = sorted((DEPLOY / "kubernetes" / folder).glob("*.yaml"))
    return [each for file in files for each in yaml.safe_load_all(file.read_text())]


def nodes() -> dict[str, dict[str, Any]]:
    """The container of each stateful set that is a node."""
    sets = {each["metadata"]["name"]: each for each in kubernetes() if each["kind"] == "StatefulSet"}
    return {name: each["spec"]["template"]["spec"] for name, each in sets.items() if name != "postgresql"}


def settings_keys(environment: Iterable[str]) -> set[str]:
    return {name for name in environment if name.startswith("WETREAD_")}


def is_a_setting(variable: str) -> bool:
    """Whether an environment variable overrides a key that there is."""
    section, key = variable.removeprefix("WETREAD_").lower().split("__")
    return key in type(getattr(Settings(), section)).model_fields


def test_several_nodes_of_the_compose_file_have_every_role_and_one_ledger_and_spool() -> None:
    services = services_of_several()
    running = {name: each for name, each in services.items() if each.get("image") == "wetread"}

    assert {each["command"][2] for each in running.values()} == {str(role) for role in Role} - {"all"}
    assert len({each["environment"]["WETREAD_LEDGER__URL"] for each in running.values()}) == 1
    assert all("spool:/var/lib/wetread" in each["volumes"] for each in running.values())
    variables = {name for each in running.values() for name in settings_keys(each["environment"])}
    assert len(variables) > 2
    assert all(map(is_a_setting, variables))
    published = [port for each in services.values() for port in each.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)
    orthanc = json.loads((DEPLOY / "compose" / "orthanc.json").read_text())
    assert services[orthanc["DicomModalities"]["wetread"]["Host"]]["command"][2] == Role.RECEIVE


def test_nodes_of_kubernetes_have_every_role_one_ledger_and_spool_and_names_of_their_own() -> None:
    pods = nodes()

    assert {pod["containers"][0]["args"][2] for pod in pods.values()} == {str(role) for role in Role} - {"all"}
    for pod in pods.values():
        [container] = pod["containers"]
        environment = {each["name"]: each["valueFrom"] for each in container["env"]}
        assert environment["WETREAD_LEDGER__NODE"]["fieldRef"]["fieldPath"] == "metadata.name"
        assert environment["WETREAD_LEDGER__URL"]["secretKeyRef"] == {"name": "wetread-ledger", "key": "url"}
        assert all(map(is_a_setting, environment))
        assert {volume["name"]: volume for volume in pod["volumes"]}["spool"] == {
            "name": "spool",
            "persistentVolumeClaim": {"claimName": "spool"},
        }
        assert pod["terminationGracePeriodSeconds"] > 30
        assert container["securityContext"]["readOnlyRootFilesystem"]


def test_the_configuration_of_kubernetes_is_valid_and_fits_its_pods() -> None:
    settings = parse(tomllib.loads((DEPLOY / "kubernetes" / "base" / "wetread.toml").read_text()), "wetread.toml")

    for pod in nodes().values():
        [container] = pod["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports.pop("http") == settings.http.port
        assert list(ports.values()) == ([settings.node.port] if "receive" in container["args"] else [])
        assert str(settings.spool.path) in {mount["mountPath"] for mount in container["volumeMounts"]}
    [receiver] = [each for each in kubernetes() if each["kind"] == "Service" and each["metadata"]["name"] == "receiver"]
    assert receiver["spec"]["sessionAffinity"] == "ClientIP"  # completeness is judged where a series arrives


def built(folder: str) -> list[dict[str, Any]]:
    """What kubectl makes of the manifests in a folder."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", DEPLOY / "kubernetes" / folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("folder", ["base", "gpu", "objects"])
def test_kubectl_builds_the_manifests(folder: str) -> None:
    sets = [each for each in built(folder) if each["kind"] == "StatefulSet"]
    images = {each["metadata"]["name"]: each["spec"]["template"]["spec"]["containers"][0]["image"] for each in sets}
    assert ("tensorrt" in images["worker"]) == (folder == "gpu")
    assert images["receiver"] == "registry.example/wetread:0.1.0"


def test_nodes_that_share_an_object_store_need_no_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    made = built("objects")
    claims = [each for each in made if each["kind"] == "PersistentVolumeClaim"]
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in made if each["kind"] == "StatefulSet"
    }
    configuration = tomllib.loads((DEPLOY / "kubernetes" / "base" / "wetread.toml").read_text())
    monkeypatch.setenv("WETREAD_LEDGER__URL", "postgresql://wetread@postgresql/wetread")

    assert not claims
    for name in nodes():
        pod = pods[name]
        [spool] = [volume for volume in pod["volumes"] if volume["name"] == "spool"]
        environment = {each["name"]: each["value"] for each in pod["containers"][0]["env"] if "value" in each}
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        settings = parse(configuration, "wetread.toml").spool
        assert settings.url.startswith("s3://")
        assert int(spool["emptyDir"]["sizeLimit"].removesuffix("Gi")) << 10 > 2 * settings.cache_mb


def test_every_metric_of_the_alerts_is_one_that_a_node_has() -> None:
    metrics = Metrics.on_new_registry()
    metrics.watch_jobs(dict)
    metrics.watch_engines(tuple)
    metrics.watch_certificates(dict)
    families = {family.name: family.type for family in metrics.registry.collect()}
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}
    there = {name + suffix for name, type_ in families.items() for suffix in suffixes[type_]}

    rules = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"][0]["rules"]
    used = {name for rule in rules for name in re.findall(r"\bwetread_\w+", rule["expr"])}
    assert len(used) > 5
    assert used <= there
    assert all(rule["annotations"]["summary"] for rule in rules)


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.tensorrt"])
def test_what_an_image_copies_exists_and_reaches_its_build(name: str) -> None:
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", (DEPLOY / name).read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    }
    sent = {line[1:] for line in (REPO_ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    assert {"pyproject.toml", "constraints.txt", "service", "engines"} <= copied
    assert copied <= sent
    assert all((REPO_ROOT / source).exists() for source in copied)


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.tensorrt"])
def test_an_image_runs_as_its_own_user_and_is_asked_for_its_health(name: str) -> None:
    text = (DEPLOY / name).read_text()

    assert text.index("USER wetread") < text.index("ENTRYPOINT")
    assert "/health" in text


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (apt-get install systemd)")
    unit = tmp_path / "wetread.service"
    # systemd wants to find the programs that a unit starts
    unit.write_text((DEPLOY / "wetread.service").read_text().replace("/opt/wetread/.venv/bin/wetread", "/bin/true"))
    drop_in = tmp_path / "wetread.service.d" / "gpu.conf"
    drop_in.parent.mkdir()
    shutil.copy(DEPLOY / "gpu.conf", drop_in)

    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
