"""One canonical encoding for every message: what is not byte for byte what we would write is refused.

    message = "QFSA" | version u8 | kind u8 | field 1 | ... | field k          (all integers big-endian)
    field   = tag u8 (its position, from 1) | length u32 | payload

A payload is an integer (8 bytes), a name (UTF-8, [A-Za-z0-9._-], at most 64), a 32-byte digest, bytes, a list
(count u32, then length u32 | bytes each) or indices (2 bytes each, strictly ascending or as they come, which is
the caller's to check). Every field is present, once, in order: there is one encoding of a message and no
optional part that could be stripped.

Cost    O(length), one copy of the message; a list is never larger than its bytes, so a length that lies costs nothing.
Errors  SecAggRefused with BAD_MAGIC, BAD_VERSION, WRONG_KIND, TRUNCATED, TRAILING, FIELD_UNKNOWN,
        FIELD_DUPLICATED, FIELD_MISSING or FIELD_MALFORMED, and no other exception, whatever the input.
"""

from __future__ import annotations

import re
import struct
from dataclasses import fields
from enum import Enum
from typing import Annotated, Any, ClassVar, Self, get_type_hints

from qfed.secagg.reasons import Reason, SecAggMisuse, SecAggRefused

MAGIC = b"QFSA"
VERSION = 1
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")

_HEADER = len(MAGIC) + 2
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_FIELD = struct.Struct(">BI")


class Form(Enum):
    """How a field's payload is laid out."""

    NUMBER = "number"
    NAME = "name"
    DIGEST = "digest"
    BYTES = "bytes"
    BYTE_LIST = "list"
    INDICES = "indices"


Number = Annotated[int, Form.NUMBER]
Name = Annotated[str, Form.NAME]
Digest = Annotated[bytes, Form.DIGEST]
Octets = Annotated[bytes | memoryview, Form.BYTES]
OctetList = Annotated[tuple[bytes, ...], Form.BYTE_LIST]
Indices = Annotated[tuple[int, ...], Form.INDICES]


def check_name(name: str, what: str) -> str:
    """Return `name` if it is one that the wire carries, else raise SecAggMisuse."""
    if not NAME.fullmatch(name):
        raise SecAggMisuse(
            Reason.FIELD_MALFORMED, f"{what} takes 1 to 64 of A-Z a-z 0-9 . _ -, got {what}={name!r}; rename it"
        )
    return name


_KNOWN_FORMS: dict[type[Any], tuple[tuple[str, Form], ...]] = {}


def _forms(cls: type[Any]) -> tuple[tuple[str, Form], ...]:
    """Return a message's fields in order; looked up once a class, since it is asked for every message."""
    if cls not in _KNOWN_FORMS:
        hints = get_type_hints(cls, include_extras=True)
        _KNOWN_FORMS[cls] = tuple((f.name, hints[f.name].__metadata__[0]) for f in fields(cls))
    return _KNOWN_FORMS[cls]


def _pack(form: Form, value: Any) -> bytes | memoryview:
    match form:
        case Form.NUMBER:
            return _U64.pack(value)
        case Form.NAME:
            return check_name(value, "name").encode()
        case Form.DIGEST:
            if len(value) != 32:
                raise SecAggMisuse(Reason.FIELD_MALFORMED, f"a digest has 32 bytes, got {len(value)}")
            return bytes(value)
        case Form.BYTES:
            return value if isinstance(value, bytes | memoryview) else bytes(value)
        case Form.BYTE_LIST:
            return b"".join([_U32.pack(len(value)), *(p for v in value for p in (_U32.pack(len(v)), v))])
        case Form.INDICES:
            return struct.pack(f">{len(value)}H", *value)


def _unpack(form: Form, view: memoryview, where: str) -> Any:
    match form:
        case Form.NUMBER:
            if len(view) != 8:
                raise _malformed(where, f"a number has 8 bytes, got {len(view)}")
            return _U64.unpack(view)[0]
        case Form.NAME:
            name = bytes(view[:65]).decode("ascii", errors="replace")
            if not NAME.fullmatch(name):
                raise _malformed(where, "a name takes 1 to 64 of A-Z a-z 0-9 . _ -")
            return name
        case Form.DIGEST:
            if len(view) != 32:
                raise _malformed(where, f"a digest has 32 bytes, got {len(view)}")
            return bytes(view)
        case Form.BYTES:
            return view
        case Form.BYTE_LIST:
            return _unpack_list(view, where)
        case Form.INDICES:
            if len(view) % 2:
                raise _malformed(where, f"indices have 2 bytes each, got {len(view)} bytes")
            return struct.unpack(f">{len(view) // 2}H", view)


def _unpack_list(view: memoryview, where: str) -> tuple[bytes, ...]:
    if len(view) < 4:
        raise _malformed(where, "a list begins with its count")
    (count,) = _U32.unpack_from(view)
    at, items = 4, []
    for _ in range(min(count, len(view) // 4)):
        if at + 4 > len(view):
            break
        (length,) = _U32.unpack_from(view, at)
        at += 4
        if at + length > len(view):
            break
        items.append(bytes(view[at : at + length]))
        at += length
    if len(items) != count or at != len(view):
        raise _malformed(where, "a list holds exactly what its count and lengths say")
    return tuple(items)


def _malformed(where: str, message: str) -> SecAggRefused:
    return SecAggRefused(Reason.FIELD_MALFORMED, f"{where}: {message}; refuse the message and ask again")


class Message:
    """A frozen dataclass whose fields have the types above; `KIND` is its number on the wire."""

    KIND: ClassVar[int]

    def encode(self) -> bytes:
        """Return the one encoding of this message."""
        parts: list[bytes | memoryview] = [MAGIC + bytes((VERSION, self.KIND))]
        for tag, (name, form) in enumerate(_forms(type(self)), start=1):
            payload = _pack(form, getattr(self, name))
            parts += (_FIELD.pack(tag, len(payload)), payload)
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Self:
        """Parse exactly one message of this kind from all of `data`.

        BYTES fields are views into `data`, not copies. Raises SecAggRefused for anything else.
        """
        view = memoryview(data)
        _check_header(view, cls)
        forms = _forms(cls)
        at, values = _HEADER, []
        for expected, (name, form) in enumerate(forms, start=1):
            if at == len(view):
                raise SecAggRefused(Reason.FIELD_MISSING, f"{cls.__name__} ends before its field {name}")
            payload, at = _next_field(view, at, expected, len(forms), cls.__name__)
            values.append(_unpack(form, payload, f"{cls.__name__}.{name}"))
        if at != len(view):
            _next_field(view, at, len(forms) + 1, len(forms), cls.__name__)
        return cls(*values)


def kind_of(data: bytes | memoryview) -> int:
    """Return the kind byte of a message after checking magic and version."""
    view = memoryview(data)
    _check_header(view, None)
    return view[len(MAGIC) + 1]


def _check_header(view: memoryview, cls: type[Message] | None) -> None:
    if len(view) < _HEADER:
        raise SecAggRefused(Reason.TRUNCATED, f"a message has at least {_HEADER} bytes, got {len(view)}")
    if view[:4] != MAGIC:
        raise SecAggRefused(Reason.BAD_MAGIC, "these bytes are not a message of qfed's secure aggregation")
    if view[4] != VERSION:
        raise SecAggRefused(Reason.BAD_VERSION, f"this side speaks version {VERSION}, got version={view[4]}")
    if cls is not None and view[5] != cls.KIND:
        raise SecAggRefused(Reason.WRONG_KIND, f"expected a {cls.__name__} (kind={cls.KIND}), got kind={view[5]}")


def _next_field(view: memoryview, at: int, expected: int, known: int, where: str) -> tuple[memoryview, int]:
    """Return the payload of the field at `at` and where the next one begins; its tag must be `expected`."""
    tag = view[at]
    if tag == 0 or tag > known:
        reason = Reason.TRAILING if expected > known else Reason.FIELD_UNKNOWN
        raise SecAggRefused(reason, f"{where} has fields 1 to {known}, got tag={tag} at byte {at}")
    if tag < expected:
        raise SecAggRefused(Reason.FIELD_DUPLICATED, f"{where} has each field once, in order, got tag={tag} again")
    if tag > expected:
        raise SecAggRefused(Reason.FIELD_MISSING, f"{where} lacks field {expected}, got tag={tag}")
    if at + _FIELD.size > len(view):
        raise SecAggRefused(Reason.TRUNCATED, f"{where} is cut off in field {tag}")
    length = _U32.unpack_from(view, at + 1)[0]
    begin = at + _FIELD.size
    if begin + length > len(view):
        raise SecAggRefused(Reason.TRUNCATED, f"{where} is cut off in field {tag}")
    return view[begin : begin + length], begin + length
