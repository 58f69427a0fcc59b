"""AVIF: how many pixels a file's pictures are coded with.

libavif decodes a picture at its coded size and only then scales it to the size that the file states. So
a file that states 16 x 16 pixels can take gigabytes. The coded size is in the AV1 sequence headers
(AV1 specification, 5.5), which are in the file's items or tracks (ISO/IEC 14496-12).
"""

from collections.abc import Iterator

_MOST = 100_000
"""Boxes, items, parts or headers to go through; files have hundreds."""
_TOO_MANY = "too many parts"
_SEQUENCE_HEADER = 1


class _Bits:
    """Reads whole numbers of some bits or bytes; zeros behind the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def bits(self, n: int) -> int:
        first, last = self._at // 8, (self._at + n + 7) // 8
        self._at += n
        taken = int.from_bytes(self._data[first:last].ljust(last - first, b"\0"))
        return taken >> (8 * last - self._at) & ((1 << n) - 1)

    def bytes(self, n: int) -> int:
        return self.bits(8 * n)


def coded_pixels(data: bytes) -> int:
    """The most pixels that a picture in an AVIF file may be coded with; 0 if there is none.

    Raises ValueError if the file is made of so many parts that they are not gone through.
    """
    top = dict(_boxes(data))
    streams = [*_items(data, dict(_boxes(top.get(b"meta", b"")[4:])))]
    streams += _first_pictures(data, top.get(b"moov", b""))
    return max((_pixels(header) for one in streams for header in _sequence_headers(one)), default=0)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kind and the content of each box."""
    at = 0
    for _ in range(_MOST):
        if at + 8 > len(data):
            return
        size, head = int.from_bytes(data[at : at + 4]), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16]), 16
        end = max(at + size, at + head) if size else len(data)
        yield data[at + 4 : at + 8], data[at + head : end]
        at = end
    raise ValueError(_TOO_MANY)


def _items(data: bytes, meta: dict[bytes, bytes]) -> Iterator[bytes]:
    """What the items of a file hold, by the box ``iloc``."""
    take = _Bits(meta.get(b"iloc", b""))
    version = take.bytes(4) >> 24
    offset_bytes, length_bytes, base_bytes, index_bytes = (take.bits(4) for _ in range(4))
    number_bytes = 4 if version == 2 else 2
    n_parts = n_bytes = 0
    n_items = take.bytes(number_bytes)
    if n_items > _MOST:
        raise ValueError(_TOO_MANY)
    for _ in range(n_items):
        take.bytes(number_bytes)
        source = meta.get(b"idat", b"") if version and take.bytes(2) & 15 else data
        take.bytes(2)
        base = take.bytes(base_bytes)
        parts = []
        for _ in range(take.bytes(2)):
            take.bytes(index_bytes if version else 0)
            start, length = base + take.bytes(offset_bytes), take.bytes(length_bytes)
            parts.append(source[start : start + length if length else None])
            n_parts, n_bytes = n_parts + 1, n_bytes + len(parts[-1])
            if n_parts > _MOST or n_bytes > 4 * len(data):
                raise ValueError(_TOO_MANY)
        yield b"".join(parts)


def _first_pictures(data: bytes, movie: bytes) -> Iterator[bytes]:
    """The first picture of each track."""
    tables = [movie]
    for name in (b"trak", b"mdia", b"minf", b"stbl"):
        tables = [box for table in tables for kind, box in _boxes(table) if kind == name]
    for table in map(dict, map(_boxes, tables)):
        offsets, sizes = table.get(b"co64"), table.get(b"stsz", b"")
        at = int.from_bytes(offsets[8:16] if offsets else table.get(b"stco", b"")[8:12])
        size = int.from_bytes(sizes[4:8]) or int.from_bytes(sizes[12:16])
        yield data[at : at + size]


def _sequence_headers(stream: bytes) -> Iterator[bytes]:
    at = 0
    for _ in range(_MOST):
        if at >= len(stream):
            return
        head = stream[at]
        at += 1 + (head >> 2 & 1)
        size = len(stream) - at
        if head >> 1 & 1:
            size = 0
            for place in range(8):
                byte = int.from_bytes(stream[at : at + 1])
                size |= (byte & 127) << 7 * place
                at += 1
                if byte < 128:
                    break
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            yield stream[at : at + size]
        at += size
    raise ValueError(_TOO_MANY)


def _pixels(header: bytes) -> int:
    take = _Bits(header)
    take.bits(4)
    is_reduced = take.bits(1)  # of a still picture, which has no size of its own
    if is_reduced:
        take.bits(5)
    else:
        _pass_operating_points(take)
    width_bits, height_bits = take.bits(4) + 1, take.bits(4) + 1
    if is_reduced:
        return (take.bits(width_bits) + 1) * (take.bits(height_bits) + 1)
    return 1 << width_bits + height_bits  # what a frame of another size may have


def _pass_operating_points(take: _Bits) -> None:
    delay_bits = 0
    if take.bits(1):  # timing
        take.bits(64)
        if take.bits(1):
            n_zeros = next((n for n in range(32) if take.bits(1)), 32)
            take.bits(n_zeros)
        if take.bits(1):  # of a decoder's model
            delay_bits = take.bits(5) + 1
            take.bits(42)
    has_delay = take.bits(1)
    for _ in range(take.bits(5) + 1):
        take.bits(12)
        if take.bits(5) > 7:
            take.bits(1)
        if delay_bits and take.bits(1):
            take.bits(2 * delay_bits + 1)
        if has_delay and take.bits(1):
            take.bits(4)
