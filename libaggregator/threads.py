"""Work in a thread of its own, so that the main thread hears signals."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_a_thread(name: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do `work` in a thread with this name, and return what it returns or raise what it raises.

    Python runs handlers of signals in the main thread, and only between two of its steps: not while a driver of a
    database blocks there in a call.
    """
    with ThreadPoolExecutor(1, name) as pool:
        return pool.submit(work, *args, **kwargs).result()
