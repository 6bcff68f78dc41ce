"""What faults do to an answer that was right: its page, its body, its headers.

Pure.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from werkzeug.wrappers import Request, Response

from d365sync.emulator.faultfile import Fault
from d365sync.emulator.store import VERSION
from d365sync.emulator.wire import decode_json, encode_json

NEXT_LINK, DELTA_LINK, ETAG = "@odata.nextLink", "@odata.deltaLink", "@odata.etag"
OLDER = 1_000_000
"""How much older the version of a stale row is."""
BLOCK = 1 << 20
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
Document = dict[str, Any]


def spoil(fault: Fault, request: Request, response: Response) -> Response:
    """Return the answer as the fault leaves it; errors of the service pass as they are, but for type and headers."""
    if response.status_code == 200:
        turn = _turned(fault)
        if turn is not None:
            response.set_data(_page(response.get_data(), lambda page: turn(page, request)))
        for old, new in fault.replace:
            response.set_data(response.get_data().replace(old.encode(), new.encode()))
        if fault.body is not None:
            response.set_data(fault.body.encode())
        if fault.shorten_to_bytes is not None:
            response.set_data(response.get_data()[: fault.shorten_to_bytes])
    if fault.compress:
        _packed(response, gzip.compress(response.get_data(), mtime=0))
    if fault.inflate_to_bytes is not None:
        _packed(response, bomb(fault.inflate_to_bytes))
    dress(fault, response)
    return response


def dress(fault: Fault, response: Response) -> None:
    """Give an answer the type and the headers of a fault."""
    if fault.content_type:
        response.headers["Content-Type"] = fault.content_type
    for name, value in fault.headers.items():
        response.headers.remove(name)
        if value:
            response.headers[name] = value


def bomb(size: int) -> bytes:
    """Return a small gzip body that unpacks to ``size`` blanks (a multiple of a mebibyte, at least one)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    blanks = b" " * BLOCK
    block = packer.compress(blanks) + packer.flush(zlib.Z_FULL_FLUSH)
    times = max(1, size // BLOCK)
    checksum = 0
    for _ in range(times):
        checksum = zlib.crc32(blanks, checksum)
    trailer = struct.pack("<II", checksum, times * BLOCK & 0xFFFFFFFF)
    return GZIP_HEADER + block * times + packer.flush(zlib.Z_FINISH) + trailer


def _packed(response: Response, body: bytes) -> None:
    response.set_data(body)
    response.headers["Content-Encoding"] = "gzip"


def _turned(fault: Fault) -> Callable[[Document, Request], None] | None:
    """Return what the fault does to a page, None when it does nothing to it."""
    turns: Mapping[str, Callable[[Document, Request], None]] = {
        "duplicate_page": lambda page, _: page.update(value=[row for row in page["value"] for _ in range(2)]),
        "reverse_page": lambda page, _: page["value"].reverse(),
        "stale_page": lambda page, _: page["value"].extend([_older(row) for row in page["value"] if ETAG in row]),
        "loop_page": lambda page, request: _goes_on(page, NEXT_LINK, request.url),
        "next_link": lambda page, _: _goes_on(page, NEXT_LINK, fault.next_link),
        "delta_link": lambda page, _: _goes_on(page, DELTA_LINK, fault.delta_link),
    }
    return next((turn for name, turn in turns.items() if getattr(fault, name)), None)


def _page(body: bytes, turn: Callable[[Document], None]) -> bytes:
    document = decode_json(body)
    if not (isinstance(document, dict) and isinstance(document.get("value"), list)):
        return body
    turn(document)
    return encode_json(document)


def _goes_on(page: Document, name: str, address: str) -> None:
    page.pop(NEXT_LINK, None)
    page.pop(DELTA_LINK, None)
    page[name] = address


def _older(row: Document) -> Document:
    """Return a row as it might have been: another amount, an older version where versions are asked for."""
    older = {name: value + 1000 if isinstance(value, Decimal) else value for name, value in row.items()}
    if isinstance(row.get(VERSION), int):
        older[VERSION] = row[VERSION] - OLDER
        older[ETAG] = f'W/"{older[VERSION]}"'
    return older
