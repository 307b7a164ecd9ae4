"""Work in several threads, with results in order."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def ordered_map(
    function: Callable[[_In], _Out], items: Iterable[_In], *, threads: int, ahead: int | None = None
) -> Iterator[_Out]:
    """Apply `function` to each item in threads, and yield the results in the order of the items.

    Unlike `Executor.map`, which reads all items at once, it also works with endless items.

    Args:
        function: called in the threads; an exception is raised in place of the result.
        items: read in the calling thread, one for each result that is yielded.
        threads: 1 or more; with 1, everything happens in the calling thread.
        ahead: largest number of results computed ahead; None: four for each thread.
    """
    if threads == 1:
        yield from map(function, items)
        return
    ahead = 4 * threads if ahead is None else ahead
    waiting: collections.deque[Future[_Out]] = collections.deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
