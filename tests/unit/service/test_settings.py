import re
from pathlib import Path

import pytest

from service.errors import ConfigurationError
from service.results.profile import ResultProfile
from service.settings import TEMPLATE, Settings, load, parse


def test_what_init_writes_is_valid_and_shows_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "wetread.toml"
    path.write_text(TEMPLATE.replace("{spool}", "/var/lib/wetread"))
    assert load(path).model_copy(update={"senders": {}, "archives": {}}) == Settings()

    uncommented = "\n".join(
        line.removeprefix("# ") if line.startswith("# ") and " = " in line.split("#")[1] else line
        for line in path.read_text().splitlines()
    )
    path.write_text(uncommented)
    assert load(path).archives["orthanc"].results == ResultProfile()
    assert load(path).model_copy(update={"senders": {}, "archives": {}}) == Settings()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"node": {"prot": 1}}, r"node\.prot = 1: no such key.*port"),
        ({"nodes": {}}, r"nodes = \{\}: no such key.*node"),
        (
            {"archives": {"a": {"ae_title": "A", "host": "h", "prt": 1, "port": 2}}},
            r"archives\.a\.prt.*no such key.*port",
        ),
        ({"node": {"port": 70000}}, r"node\.port = 70000"),
        ({"node": {"ae_title": "A" * 17}}, r"node\.ae_title = 'AAAAA"),
        ({"node": {"ae_title": "A\\B"}}, r"node\.ae_title"),
        ({"senders": {"PACS": {"archive": "nowhere"}}}, r"senders\.PACS\.archive = 'nowhere': no such archive.*none"),
        ({"engines": {"runtime": "torch"}}, r"engines\.runtime = 'torch'.*openvino"),
        ({"series": {"quiet_seconds": "soon"}}, r"series\.quiet_seconds = 'soon'"),
        ({"node": {"user_identity": "require"}}, r"no user is known; add \[node\.users\]"),
        ({"tls": {"key": "key.pem"}}, r"wetread\.toml: tls\.certificate is missing; name the PEM file"),
        ({"tls": {"certificate": "node.pem"}}, r"tls\.key is missing"),
        ({"tls": {"certificate": "node.pem", "key": "key.pem"}}, r"tls\.authorities is missing.*clients = \"none\""),
        ({"senders": {"A": {"archive": "a", "addresses": ["10.0.0.1/8"]}}}, r"addresses\.0 = '10.0.0.1/8'"),
        (
            {
                "senders": {"A": {"archive": "a", "certificates": ["CN=ct1"]}},
                "archives": {"a": {"ae_title": "A", "host": "h", "port": 2}},
            },
            r"senders\.A\.certificates: no sender can show one; set tls\.certificate",
        ),
        ({"senders": {"A": {"archive": "a", "certificates": ["ct1"]}}}, r"certificates\.0 = 'ct1'.*sha256"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_fix(content: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse(content, "wetread.toml")


def test_a_passcode_is_never_shown() -> None:
    for users in ({"ct1": 12345}, {"ct1": ["12345"]}):
        with pytest.raises(ConfigurationError, match=r"node\.users\.ct1") as caught:
            parse({"node": {"users": users}}, "wetread.toml")
        assert "12345" not in str(caught.value)
    assert "12345" not in repr(parse({"node": {"users": {"ct1": "12345"}}}, "wetread.toml"))


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse({"node": {"port": -1, "x": 1}, "log": {"format": "xml"}}, "wetread.toml")
    assert len(str(caught.value).splitlines()) == 3


def test_an_environment_variable_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WETREAD_NODE__PORT", "11113")
    settings = parse({"node": {"port": 104, "ae_title": "CT_NODE"}}, "wetread.toml")
    assert (settings.node.port, settings.node.ae_title) == (11113, "CT_NODE")


@pytest.mark.parametrize(("text", "message"), [("[node", "not valid TOML"), (None, "no such file.*wetread init")])
def test_a_file_that_is_no_configuration_says_so(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wetread.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load(path)


def test_each_sender_has_its_archive() -> None:
    archive = {"ae_title": "A", "host": "h", "port": 104}
    settings = parse({"senders": {"PACS": {"archive": "main"}}, "archives": {"main": archive}}, "wetread.toml")
    destination = settings.destination_for("PACS")
    assert destination is not None
    assert (destination.name, destination.ae_title, destination.port) == ("main", "A", 104)
    assert settings.destination_for("OTHER") is None


def test_each_archive_has_its_own_results() -> None:
    archive = {"ae_title": "A", "host": "h", "port": 104}
    old = archive | {"results": {"objects": ["SC"], "report": "enhanced"}}
    senders = {"CT1": {"archive": "new"}, "CT2": {"archive": "old"}}
    settings = parse({"senders": senders, "archives": {"new": archive, "old": old}}, "wetread.toml")
    assert settings.profile_for("CT1") == settings.profile_for("UNKNOWN") == ResultProfile()
    assert settings.profile_for("CT2") == ResultProfile(objects=("SC",), report="enhanced")


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"objects": ["SEG", "JPEG"]}, "results.objects.1 = 'JPEG': Input should be 'SEG', "),
        ({"segmentation": "binnary"}, "results.segmentation = 'binnary': Input should be 'binary', "),
        ({"uid_root": "1.02"}, "results.uid_root = '1.02'"),
        ({"uid_root": "1." + "3" * 40}, "at most 30 characters"),
        ({"format": "binary"}, "results.format = 'binary': no such key; remove it or use one of: captures, objects"),
        ({"objects": ["SR", "SR"]}, "each kind of object once"),
        ({"objects": []}, "at least 1 item"),
    ],
)
def test_wrong_results_are_named_with_the_fix(results: dict[str, object], message: str) -> None:
    archive = {"ae_title": "A", "host": "h", "port": 104, "results": results}
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        parse({"archives": {"main": archive}}, "wetread.toml")
