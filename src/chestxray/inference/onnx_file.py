"""Is a model file whole: does it hold every weight itself?

ONNX lets a tensor lie in another file, which ONNX Runtime looks for in the current directory when
it is given bytes. The SHA-256 of such a model says nothing of those weights, so it is refused. The
file is walked here, since neither ONNX Runtime nor a SHA-256 asks; ``onnx`` is no dependency.

Sources: onnx.proto (field numbers), protobuf's encoding of messages. Does not: judge anything else
of a model (ONNX Runtime does).
"""

from __future__ import annotations

from collections.abc import Iterator

from chestxray.errors import BundleDamagedError

# Where messages lie in one another on the way to a tensor: {message: {field: message}}.
_WITHIN = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5
_MAX_DEPTH = 32


def check_self_contained(model: bytes) -> None:
    """Raises BundleDamagedError: a tensor lies in another file, or ``model`` is no ONNX file."""
    try:
        _check(memoryview(model), "Model", _MAX_DEPTH)
    except (IndexError, ValueError) as exc:
        raise BundleDamagedError("the model does not run: it is no ONNX file") from exc


def _check(message: memoryview, kind: str, depth: int) -> None:
    if depth == 0:
        raise ValueError("too deep")
    within = _WITHIN[kind]
    for field, value in _fields(message):
        if kind == "Tensor" and (
            field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0)
        ):
            raise BundleDamagedError("the model has weights that lie in another file")
        if field in within:
            if not isinstance(value, memoryview):
                raise ValueError("not a message")
            _check(value, within[field], depth - 1)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview | None]]:
    """Each field's number and value: an integer, bytes, or None for one of fixed size."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        # Protobuf cuts a key to 32 bits, so that a longer one may mean another field there.
        if not 8 <= key < 1 << 32:
            raise ValueError("no key of a field")
        field, wire_type = key >> 3, key & 7
        value: int | memoryview | None = None
        if wire_type == _VARINT:
            value, at = _varint(message, at)
        elif wire_type == _LENGTH:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        elif wire_type in (_FIXED_64, _FIXED_32):
            at += 8 if wire_type == _FIXED_64 else 4
        else:
            raise ValueError("no field of such a type")
        if at > len(message):
            raise ValueError("the message ends within a field")
        yield field, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The integer at ``at``, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("an integer of more than 64 bits")
