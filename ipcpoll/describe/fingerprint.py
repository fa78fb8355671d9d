"""The fingerprint of a description: the same for two processes of one program. No I/O.

It is the SHA-256 of a map of sections in CBOR's core deterministic encoding (RFC 8949, 4.2.1). A
map of sections is large, so it is never encoded whole: the entries are encoded one by one, and
joined here in the order that the encoding prescribes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cbor2

from .._wire import codec


def deterministic(plain: Any) -> bytes:
    """Return a plain value in the core deterministic encoding. The keys of its maps are text.

    cbor2 sorts the keys by their length first (RFC 7049), which for text is the order of their
    encodings as well.
    """
    item: bytes = cbor2.dumps(plain, canonical=True)
    return item


def load_hash() -> Callable[[bytes], Any]:
    """Return SHA-256. The first time it loads OpenSSL, which takes 2 ms: a step of its own."""
    import hashlib  # noqa: PLC0415

    return hashlib.sha256


def fingerprint(sections: Mapping[str, Mapping[str, bytes]]) -> str:
    """Return the SHA-256, in hexadecimal, of the map of these sections.

    Each is given as its entries, encoded by `deterministic`. The order of either does not count.
    """
    digest = load_hash()(codec.map_head(len(sections)))
    for name, entries in _sorted(sections):
        digest.update(name + codec.map_head(len(entries)))
        for key, item in _sorted(entries):
            digest.update(key + item)
    text: str = digest.hexdigest()
    return text


def _sorted(entries: Mapping[str, Any]) -> list[tuple[bytes, Any]]:
    return sorted(((codec.encode(key), item) for key, item in entries.items()), key=_key)


def _key(entry: tuple[bytes, Any]) -> bytes:
    return entry[0]
