import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.archive.multipart import parts

BOUNDARY = b"a-boundary"
CONTENT = st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b"--", b"a-boundary", b"\x00\xff", b"DICM"]) | st.binary())


def body(contents: list[bytes], preamble: bytes = b"") -> bytes:
    head = b"\r\nContent-Type: application/dicom\r\n\r\n"
    return preamble + b"".join(b"\r\n--%s%s%s" % (BOUNDARY, head, content) for content in contents) + END


END = b"\r\n--%s--\r\n" % BOUNDARY


@given(st.lists(CONTENT.map(b"".join).filter(lambda content: b"\r\n--" + BOUNDARY not in content), max_size=4))
def test_the_parts_of_a_multipart_body_come_out_bit_for_bit(contents: list[bytes]) -> None:
    assert list(parts(body(contents), BOUNDARY)) == contents
    assert list(parts(body(contents).removeprefix(b"\r\n"), BOUNDARY)) == contents
    assert list(parts(body(contents, preamble=b"to be ignored"), BOUNDARY)) == contents


@given(st.integers(0, len(body([b"one", b"two"])) - len(END)))
def test_a_multipart_body_without_its_end_is_an_error(length: int) -> None:
    with pytest.raises(ValueError, match="delimiter"):
        list(parts(body([b"one", b"two"])[:length], BOUNDARY))
