"""A thread that looks again and again, and never dies of what it sees."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import final

log = logging.getLogger(__name__)

#: how long until the next look, in seconds: what a promotion or a rollback waits for at most, besides loading
EVERY = 0.15


@final
class Watch:
    """Calls ``look`` every so many seconds, from :meth:`start` to :meth:`close`.

    Whatever ``look`` raises is logged with its trace, once as long as it stays the same, and the next look comes all
    the same.

    Parameters
    ----------
    look : callable
        What to do.
    name : str
        Of the thread.
    every : float
        Seconds between the end of a look and the next.
    """

    def __init__(self, look: Callable[[], None], name: str, every: float = EVERY) -> None:
        self._look, self._every = look, every
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._last = ""

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and wait for a look that is going on."""
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ends.wait(self._every):
            try:
                self._look()
                self._last = ""
            except Exception as error:  # a thread's end: nobody above would hear of it, and the next look may succeed
                told = repr(error)
                if told != self._last:
                    log.exception("a look of %s failed", self._thread.name)
                self._last = told
