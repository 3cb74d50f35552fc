import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import inflating
from service.errors import Quarantined
from service.inflating import inflated_head


def deflated(content: bytes) -> memoryview:
    compressing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return memoryview(compressing.compress(content) + compressing.flush())


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=3000), times=st.sampled_from([1, 40, 2000]), size=st.integers(0, 5000))
def test_the_beginning_is_what_was_deflated(content: bytes, times: int, size: int) -> None:
    assert inflated_head(deflated(content * times), size) == (content * times)[:size]
    assert inflated_head(memoryview(bytes(deflated(content * times)) + b"\0"), size) == (content * times)[:size], (
        "padded"
    )


def test_what_inflates_too_far_is_refused_without_holding_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflating, "LARGEST", 64 << 20)
    bomb = deflated(bytes(80 << 20))
    assert len(bomb) < 100_000
    with pytest.raises(Quarantined, match="inflates to more than 64 MiB"):
        inflated_head(bomb, 1000)


@pytest.mark.parametrize(
    ("content", "why"), [(deflated(bytes(5000))[:-4], "ends early"), (b"\xff" * 50, "not deflated")]
)
def test_what_is_broken_is_told(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        inflated_head(memoryview(content), 1000)
