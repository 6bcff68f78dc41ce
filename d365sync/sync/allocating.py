"""Letting go of the memory of pages.

A thread that fetches makes and frees blocks of many megabytes. The C library of Linux learns from that to keep such
blocks for the thread, and sixteen threads then keep a few hundred megabytes that nobody uses.

Source: mallopt(3), M_MMAP_THRESHOLD (setting it ends the adjustment; a block above it is given back when it is freed).

IO: the C library's allocator.
"""

from __future__ import annotations

import ctypes
import sys

LARGE_BYTES = 1024 * 1024
M_MMAP_THRESHOLD = -3


def give_back_large_blocks() -> bool:
    """Let freed blocks of a megabyte or more go back to the system; say whether the C library knows how."""
    if sys.platform != "linux":
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES))
    except (OSError, AttributeError):  # another C library
        return False
