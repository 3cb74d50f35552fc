import pytest

from service.archive.client import archives_of
from service.errors import ConfigurationError
from service.settings import Settings, parse


def settings(**keys: str) -> Settings:
    archives = {"pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104, **keys}, "quiet": QUIET}
    senders = {"CT1": {"archive": "pacs"}, "CT2": {"archive": "pacs"}, "CT3": {"archive": "quiet"}}
    return parse({"senders": senders, "archives": archives}, "wetread.toml")


QUIET = {"ae_title": "QUIET", "host": "127.0.0.1", "port": 105, "count": "no"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"count": "qido"}, r'archives\.pacs\.dicomweb = \'\': .*count = "qido" needs it; .*http://'),
        ({"fetch": "wado-rs"}, r'archives\.pacs\.dicomweb = \'\': .*fetch = "wado-rs" needs it'),
        ({"count": "no", "fetch": "c-get"}, r"archives\.pacs\.fetch = 'c-get': .*set count to"),
        ({"count": "ask"}, r"archives\.pacs\.count = 'ask': .*c-find"),
        ({"fetch": "c-store"}, r"archives\.pacs\.fetch = 'c-store': .*c-move"),
        ({"dicomweb": "pacs:8042"}, r"archives\.pacs\.dicomweb = 'pacs:8042'"),
    ],
)
def test_a_wrong_way_to_ask_an_archive_is_named_with_the_fix(keys: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        settings(**keys)
    assert len(str(caught.value).splitlines()) == 1


def test_an_archive_is_asked_by_c_find_and_fetched_from_only_where_the_settings_say_so() -> None:
    assert settings().archives["pacs"].count == "c-find"
    assert not archives_of(settings())["CT1"].fetches
    web = settings(count="qido", fetch="wado-rs", dicomweb="http://pacs:8042/dicom-web/")
    assert web.archives["pacs"].dicomweb == "http://pacs:8042/dicom-web"
    assert archives_of(web)["CT1"].fetches


def test_senders_of_one_archive_share_what_is_known_of_it_and_one_that_is_not_to_be_asked_is_not_there() -> None:
    archives = archives_of(settings())
    assert archives["CT1"] is archives["CT2"]
    assert sorted(archives) == ["CT1", "CT2"]


@pytest.mark.parametrize("uids", [("", "1.2"), ("1.2", ""), ("1.2", "*"), ("1.2", "1.2\\1.3"), ("1.2", "../1.3")])
def test_what_is_no_uid_is_asked_of_no_archive(uids: tuple[str, str]) -> None:
    archive = archives_of(settings(fetch="c-get"))["CT1"]  # nothing listens there
    assert archive.count(*uids) is None
    assert archive.instances(*uids) == ()
    assert archive.fetch(*uids, ["1.2.3"], keep=lambda file: None) == 0
