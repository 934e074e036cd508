"""Memory of a process."""

import ctypes

_M_ARENA_MAX = -8  # https://man7.org/linux/man-pages/man3/mallopt.3.html


def share_one_heap() -> None:
    """Let threads that are started from here on allocate memory from one heap (glibc; elsewhere nothing happens).

    By default each thread has a heap of its own, which keeps what its largest batch or answer took. A second one
    gains nothing where one thread at a time runs Python.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
