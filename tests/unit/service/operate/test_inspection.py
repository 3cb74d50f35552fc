"""`wetread check` on a machine with a GPU's driver."""

import shutil
import socket
import sys
from pathlib import Path

import pytest

from service.operate.inspection import Line, inspect

NEEDS_IPV6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
CONFIGURATION = """\
[node]
port = 0
[http]
port = 0
[spool]
path = "{spool}"
[engines]
models = ["cxr-lung"]
"""


def test_where_nothing_runs_on_the_gpu_the_cpu_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "driver").touch()
    monkeypatch.setattr("service.served.DRIVER", tmp_path / "driver")
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    (tmp_path / "wetread.toml").write_text(CONFIGURATION.replace("{spool}", str(tmp_path / "spool")))
    (model,) = [line for line in inspect(tmp_path / "wetread.toml") if line.what == "model cxr-lung"]
    assert model.ok
    assert model.finding.startswith("verified on openvino")
    assert "gpu" not in model.finding


def test_what_is_installed_for_the_gpu_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here, and the reason why it is not used is that of the runtime itself."""
    (tmp_path / "driver").touch()
    monkeypatch.setattr("service.served.DRIVER", tmp_path / "driver")
    monkeypatch.setattr("engines.serving.opening.installed_gpu_runtime", lambda _: "rtx")
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    (tmp_path / "wetread.toml").write_text(CONFIGURATION.replace("{spool}", str(tmp_path / "spool")))
    (model,) = [line for line in inspect(tmp_path / "wetread.toml") if line.what == "model cxr-lung"]
    assert "not on rtx fp16: pycuda cannot be imported" in model.finding


def test_a_spool_that_would_take_nothing_for_want_of_room_is_told(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free >> 20
    text = CONFIGURATION.replace("{spool}", str(tmp_path / "spool")).replace("[spool]", f"[spool]\nreserve_mb = {free}")
    (tmp_path / "wetread.toml").write_text(text)
    (spool,) = [line for line in inspect(tmp_path / "wetread.toml") if line.what == "spool"]
    assert not spool.ok
    assert "spool.reserve_mb" in spool.finding


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=NEEDS_IPV6)])
def test_the_port_of_stow_is_looked_at_as_the_others_are(host: str, tmp_path: Path) -> None:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        port = taken.getsockname()[1]
        text = CONFIGURATION.replace("{spool}", str(tmp_path / "spool"))
        text += f'[stow]\nenabled = true\nhost = "{host}"\nport = {port}\n'
        (tmp_path / "wetread.toml").write_text(text)
        line = stow_port(tmp_path)
        assert not line.ok
        assert line.finding.startswith(f"stow.port = {port} on {host}: Address already in use")
    assert stow_port(tmp_path).ok


def stow_port(folder: Path) -> Line:
    return next(line for line in inspect(folder / "wetread.toml") if line.what == "stow.port")
