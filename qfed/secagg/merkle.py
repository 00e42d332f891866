"""One signature for many receivers: a hash tree whose root is signed, and a path that proves one leaf.

    node = H("node", left, right); an odd node goes up alone; leaves carry their own domain (the caller's digest)

So a member signs once for n sealed keys and each site gets log2(n) digests with its own. Two trees of different
`count` may share a root, so the count is fixed by the transcript. Source: Merkle, CRYPTO '87; as in RFC 9162.
Cost    n hashes to build, ceil(log2 n) to prove or to check
"""

from __future__ import annotations

from collections.abc import Sequence

from qfed.secagg.primitives import digest


def levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Return the tree from the leaves (first) to the root (last, one element)."""
    tree = [list(leaves)]
    while len(tree[-1]) > 1:
        below = tree[-1]
        row = [digest("node", below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
        tree.append(row + below[len(below) & ~1 :])
    return tree


def prove(tree: list[list[bytes]], position: int) -> bytes:
    """Return the path of the leaf at `position`: sibling digests from below, concatenated."""
    path = []
    for row in tree[:-1]:
        if position ^ 1 < len(row):
            path.append(row[position ^ 1])
        position //= 2
    return b"".join(path)


def verify(root: bytes, leaf: bytes, position: int, count: int, path: bytes) -> bool:
    """Say whether `path` leads from `leaf` at `position` of `count` leaves to `root`."""
    if not 0 <= position < count:
        return False
    node, at = leaf, 0
    while count > 1:
        if position ^ 1 < count:
            sibling = path[at : at + 32]
            at += 32
            node = digest("node", sibling, node) if position & 1 else digest("node", node, sibling)
        position //= 2
        count = (count + 1) // 2
    return at == len(path) and node == root
