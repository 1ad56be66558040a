"""Files by a name that renames do not change, and that outlasts whoever had them open (name_to_handle_at(2))."""

import ctypes
import os
import struct
from typing import Final

from orlop.kernel import syscalls as sc

_EMPTY_PATH: Final = 0x1000
_HEADER: Final = struct.Struct("=Ii")
_MOST: Final = 128


def of(file: int) -> bytes:
    """The handle of an open file: it means this file, on this filesystem, for as long as the file exists."""
    buffer = ctypes.create_string_buffer(_HEADER.pack(_MOST, 0), _HEADER.size + _MOST)
    sc.checked(sc.libc.name_to_handle_at(file, b"", buffer, ctypes.byref(ctypes.c_int()), _EMPTY_PATH))
    return buffer.raw[: _HEADER.size + _HEADER.unpack_from(buffer.raw)[0]]


def opened(root: int, handle: bytes, flags: int) -> int:
    """Open the file ``handle`` of the filesystem that the folder ``root`` is on, as that mount allows.

    Raises `OSError`, ESTALE if the file is gone.
    """
    buffer = ctypes.create_string_buffer(handle, len(handle))
    return sc.checked(sc.libc.open_by_handle_at(root, buffer, flags | os.O_CLOEXEC))
