"""Whether an ONNX file keeps weights in other files, without the library that only those who build engines have.

The wire format is that of protocol buffers; the fields are those of ``onnx.proto3``.
"""

from collections.abc import Iterator

Field = tuple[int, int | memoryview]

WAYS = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Which fields of which message lead to tensors (ModelProto, GraphProto, NodeProto, AttributeProto, …)."""

DATA_LOCATION, EXTERNAL_DATA = 14, 13
"""Fields of TensorProto that only external data has: what is not the default, and where it is."""


def has_external_data(content: bytes) -> bool:
    """Tell whether any tensor of a network lies in another file; of what is no ONNX file, nobody needs to know."""
    waiting = [("model", memoryview(content))]
    try:
        while waiting:
            kind, message = waiting.pop()
            for number, value in _fields(message):
                if kind == "tensor":
                    if number == EXTERNAL_DATA or (number == DATA_LOCATION and value):
                        return True
                elif number in WAYS[kind] and isinstance(value, memoryview):
                    waiting.append((WAYS[kind][number], value))
    except (IndexError, ValueError):
        return False  # the runtime will say what is wrong
    return False


def _fields(message: memoryview) -> Iterator[Field]:
    place = 0
    while place < len(message):
        tag, place = _number(message, place)
        match tag & 7:
            case 0:
                value, place = _number(message, place)
                yield tag >> 3, value
            case 1:
                place += 8
            case 2:
                length, place = _number(message, place)
                yield tag >> 3, message[place : place + length]
                place += length
            case 5:
                place += 4
            case _:
                raise ValueError("no protocol buffer")


def _number(message: memoryview, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
        shift += 7
        if shift > 63:
            raise ValueError("no protocol buffer")
