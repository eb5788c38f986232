"""One bounded thread pool for the tiled kernels.

NumPy lets go of the interpreter lock inside every product and every ``exp``, so plain threads run them side by
side. NumPy's BLAS has threads of its own: while the pool works each product must run on one, or ``t`` workers
would start ``t`` threads each. The pool is as wide as BLAS was set to be, so ``OMP_NUM_THREADS``,
``OPENBLAS_NUM_THREADS``, a container's CPU set and ``threadpoolctl`` are respected without being read here.
Where BLAS cannot be asked, the work stays on the calling thread and BLAS uses its own threads as it likes.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import numpy as np

__all__: list[str] = []

T = TypeVar("T")

#: (get, set) functions of the BLAS builds NumPy is linked with: its own wheels, other OpenBLAS builds, MKL.
_BLAS_FUNCTIONS = (
    ("scipy_openblas_get_num_threads64_", "scipy_openblas_set_num_threads64_"),
    ("scipy_openblas_get_num_threads", "scipy_openblas_set_num_threads"),
    ("openblas_get_num_threads64_", "openblas_set_num_threads64_"),
    ("openblas_get_num_threads", "openblas_set_num_threads"),
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
)


@cache
def _blas() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """Return the functions that read and set the number of BLAS threads, or None where there are none."""
    try:  # a symbol is looked up in the library and in what it is linked with, so BLAS need not be located
        library = ctypes.CDLL(np.linalg._umath_linalg.__file__)
    except (AttributeError, OSError):
        return None
    for get, set_ in _BLAS_FUNCTIONS:
        if hasattr(library, get) and hasattr(library, set_):
            return getattr(library, get), getattr(library, set_)
    return None


class _State:
    """What has to start afresh in a forked child, where the threads of the parent do not exist."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0  # calls of `parallel` under way, from any thread
        self.saved = 1  # the number of BLAS threads to restore after the last of them
        self.executor: ThreadPoolExecutor | None = None
        self.width = 0


_state = _State()
_worker = threading.local()


def _after_fork() -> None:
    global _state
    blas = _blas()
    if _state.users and blas is not None:
        blas[1](_state.saved)
    _state = _State()
    _worker.busy = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def num_threads() -> int:
    """Return how many threads ``parallel`` uses: as many as BLAS would, and no more than there are CPUs."""
    blas = _blas()
    if blas is None or getattr(_worker, "busy", False):
        return 1
    with _state.lock:
        width = _state.saved if _state.users else blas[0]()
    return max(1, min(width, _cpus()))


def _cpus() -> int:
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread; calls may overlap, and the last to leave restores what the first one found."""
    blas = _blas()
    if blas is None:
        yield
        return
    get, set_ = blas
    with _state.lock:
        if _state.users == 0:
            _state.saved = get()
            set_(1)
        _state.users += 1
    try:
        yield
    finally:
        with _state.lock:
            _state.users -= 1
            if _state.users == 0:
                set_(_state.saved)


def _submit(work: Callable[[], None], width: int) -> list[Future[None]]:
    """Start ``work`` on ``width`` threads of the pool, which is made here and made anew when it has to grow."""
    with _state.lock:
        if _state.executor is None or _state.width < width:
            if _state.executor is not None:
                _state.executor.shutdown(wait=False)
            _state.executor = ThreadPoolExecutor(width, thread_name_prefix="attn_guide")
            _state.width = width
        return [_state.executor.submit(work) for _ in range(width)]


def parallel(function: Callable[[T], None], items: Iterable[T]) -> None:
    """Call ``function`` on every item, on several threads and in any order; the first error is raised.

    The calling thread works too. A call from inside a worker runs in place.
    """
    todo = list(items)
    width = min(num_threads(), len(todo))
    if width <= 1:
        for item in todo:
            function(item)
        return
    todo.reverse()  # a list's pop is atomic, so it serves as the queue

    def work() -> None:
        _worker.busy = True
        try:
            while todo:
                try:
                    item = todo.pop()
                except IndexError:  # another worker took the last one
                    return
                function(item)
        except BaseException:
            todo.clear()  # the others stop after what they have in hand
            raise
        finally:
            _worker.busy = False

    with _one_blas_thread():
        helpers = _submit(work, width - 1)
        try:
            work()
        finally:  # a helper that has not started by now has nothing left to do
            errors = [helper.exception() for helper in helpers if not helper.cancel()]
    for error in errors:
        if error is not None:
            raise error
