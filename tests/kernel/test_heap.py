"""What the C library is asked for, it does: by its own report on its heaps (malloc_info(3))."""

import subprocess
import sys

_PROGRAM = """
import ctypes, sys, threading
from orlop.kernel import heap
if "shared" in sys.argv:
    heap.shared()
barrier = threading.Barrier(4)
def work():
    pieces = [bytearray(1000) for _ in range(100)]
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype, libc.fdopen.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_char_p)
libc.malloc_info.argtypes, libc.fflush.argtypes = (ctypes.c_int, ctypes.c_void_p), (ctypes.c_void_p,)
stream = libc.fdopen(1, b"w")
libc.malloc_info(0, stream)
libc.fflush(stream)
"""


def _heaps(*words: str) -> int:
    run = subprocess.run([sys.executable, "-c", _PROGRAM, *words], capture_output=True, text=True, check=True)
    return run.stdout.count("<heap nr=")


def test_threads_share_one_heap_where_that_is_asked_for() -> None:
    assert _heaps("shared") == 1
    assert _heaps() > 1, "otherwise nothing has to be asked for"
