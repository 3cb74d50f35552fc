import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from service.settings import parse
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
