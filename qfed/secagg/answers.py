"""What a member's one answer of a round is about, as both sides compute it.

    about = H("answer", view, U, D, size)

so that an answer to another set of survivors, another set of lost members or another committee does not pass for
the one that was asked.
"""

from __future__ import annotations

from qfed.secagg import primitives


def about_answer(view: bytes, survivors: tuple[int, ...], lost: tuple[int, ...], size: int) -> bytes:
    """Return what the statement of an unmask (or, with size 0, a recovery) reply is about."""
    return primitives.digest("answer", view, pack(survivors), pack(lost), size.to_bytes(8, "big"))


def pack(indices: tuple[int, ...]) -> bytes:
    """Return indices as bytes, two each."""
    return b"".join(i.to_bytes(2, "big") for i in indices)


def unpack(data: bytes) -> tuple[int, ...]:
    """Invert `pack`."""
    return tuple(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
