from service.series.rhythm import RECENT_SERIES, SENDERS, Pauses, Rhythm


def noted(*pauses: Pauses) -> Pauses:
    rhythm = Rhythm()
    for one in pauses:
        rhythm.note("CT1", one)
    return rhythm.usual("CT1")


def test_of_an_unknown_sender_no_pauses_are_expected() -> None:
    assert Rhythm().usual("CT1") == Pauses()


def test_the_pauses_of_a_new_sender_count_at_once() -> None:
    assert noted(Pauses(between=3.0), Pauses(within=1.0)) == Pauses(within=1.0, between=3.0)


def test_one_slow_series_in_many_changes_nothing_and_several_do() -> None:
    fast, slow = Pauses(between=0.5), Pauses(between=20.0)
    assert noted(*[fast] * 19, slow).between == 0.5
    assert noted(*[fast] * 16, *[slow] * 4).between == 20.0


def test_only_recent_series_count() -> None:
    assert noted(Pauses(within=9.0), *[Pauses(within=1.0)] * RECENT_SERIES).within == 1.0


def test_a_sender_that_always_aborts_its_associations_is_known_by_it() -> None:
    assert not noted(*[Pauses(aborts=True)] * 4).aborts
    assert noted(*[Pauses(aborts=True)] * 5).aborts
    assert not noted(*[Pauses(aborts=True)] * 5, *[Pauses()] * 5).aborts


def test_senders_are_told_apart_and_a_bounded_number_is_remembered() -> None:
    rhythm = Rhythm()
    for number in range(SENDERS + 1):
        rhythm.note(f"CT{number}", Pauses(within=float(number + 1)))
    assert rhythm.usual("CT0") == Pauses()
    assert rhythm.usual("CT7").within == 8.0
