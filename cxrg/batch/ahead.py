"""An iterator that runs ahead of its reader, in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

_PATIENCE = 0.1  # seconds between two checks for `close`


class Ahead(Generic[T]):
    """Takes items from an iterable in a thread, a bounded number ahead of `take`.

    Attributes:
        ended: whether `take` has returned the last item.
    """

    def __init__(self, items: Iterable[T], most: int) -> None:
        self._ready: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(most)
        self._closed = threading.Event()
        self.ended = False
        self._thread = threading.Thread(
            target=self._run, args=(items,), name="cxrg-list", daemon=True
        )
        self._thread.start()

    def take(self, timeout: float) -> T | None:
        """The next item, or None where there is none within so many seconds.

        Raises:
            StopIteration: there are no more.
            Exception: whatever the iterable raised.
        """
        if self.ended:
            raise StopIteration
        try:
            found = self._ready.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(found, tuple):
            return found[0]
        self.ended = True
        if found is None:
            raise StopIteration
        raise found

    def close(self) -> None:
        """Let the thread end with its current item."""
        self._closed.set()

    def _run(self, items: Iterable[T]) -> None:
        last: BaseException | None = None
        try:
            for item in items:
                if not self._put((item,)):
                    return
        except BaseException as error:  # noqa: BLE001 - the reader raises it
            last = error
        self._put(last)

    def _put(self, item: tuple[T] | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=_PATIENCE)
            except queue.Full:
                continue
            return True
        return False
