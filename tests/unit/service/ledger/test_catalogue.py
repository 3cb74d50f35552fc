from collections.abc import Iterator

import pytest

from service.ledger.catalogue import Catalogue, Entry
from service.ledger.database import open_database


@pytest.fixture
def catalogue(ledger_url: str) -> Iterator[Catalogue]:
    opened = Catalogue(open_database(ledger_url))
    yield opened
    opened.close()


def entry(name: str, token: str = "1") -> Entry:
    return Entry(name, token, f"digest of {token}", 3_000_000_000, 1_700_000_000_123_456_789)


def test_what_was_put_is_listed_as_it_is_by_the_beginning_of_its_name(catalogue: Catalogue) -> None:
    first, second, other = entry("series/a1/x.dcm"), entry("series/a1/y.dcm"), entry("series/a2/x.dcm")
    assert catalogue.exchange([], [second, other, first])
    assert catalogue.listed("series/a1/") == {first.name: first, second.name: second}
    assert list(catalogue.listed("series/a1/y", "series/a2/")) == [second.name, other.name]


def test_of_two_who_put_something_under_a_name_one_is_told_that_the_other_was_faster(catalogue: Catalogue) -> None:
    first, second = entry("series/a1/x.dcm", "1"), entry("series/a1/x.dcm", "2")
    assert catalogue.exchange([], [first])
    assert not catalogue.exchange([], [entry("series/a1/w.dcm"), second])
    assert catalogue.listed("series/") == {first.name: first}, "nothing of the second was done"
    assert catalogue.exchange([first], [second])
    assert not catalogue.exchange([first], [entry("series/a1/x.dcm", "3")])
    assert catalogue.listed("series/") == {second.name: second}
    assert catalogue.leavings(10) == [first.key]


def test_what_is_damaged_is_listed_as_that_until_it_is_replaced(catalogue: Catalogue) -> None:
    first = entry("series/a1/x.dcm", "1")
    catalogue.exchange([], [first])
    catalogue.damaged(entry("series/a1/x.dcm", "0"))
    assert catalogue.listed("series/") == {first.name: first}, "that is another one"
    for _ in range(2):
        catalogue.damaged(catalogue.listed("series/")[first.name])
        [found] = catalogue.listed("series/").values()
        assert (found.sound, found.sha256, found.key) == (False, first.digest, first.key)


def test_what_is_forgotten_is_to_be_removed_from_the_store_until_it_was(catalogue: Catalogue) -> None:
    forgotten, kept = [entry(f"series/a1/{n}") for n in range(3)], entry("series/a10/0")
    catalogue.exchange([], [*forgotten, kept])
    catalogue.forget(["series/a1/"], older_than=60)
    assert catalogue.leavings(10) == [], "all of it has just come"
    catalogue.forget(["series/a1/", "work/a1/"])
    assert list(catalogue.listed("series/")) == [kept.name]
    keys = catalogue.leavings(10)
    assert sorted(keys) == [each.key for each in forgotten]
    assert len(catalogue.leavings(2)) == 2
    catalogue.removed(keys[:2])
    assert catalogue.leavings(10) == keys[2:]
