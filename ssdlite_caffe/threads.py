"""Work on several threads, its results in order."""

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
    """`function` of each item, in the order of the items.

    `Executor.map` takes in all items at once, and these may be without end.

    Args:
        function: called from the threads; what it raises comes out in its place.
        items: taken from the calling thread, one as each result is given.
        threads: 1 or more; with 1, everything happens in the calling thread.
        ahead: most results that wait to be taken; four a thread by default.
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
