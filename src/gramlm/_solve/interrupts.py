"""Ctrl-C while a solve is under way."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupts:
    """Within it the first Ctrl-C only sets `asked`, so that a step is not left in the middle.

    The second raises `KeyboardInterrupt` at once, and so does the first while a callback runs.
    Without effect outside of the main thread, and where the program handles the signal itself.
    """

    def __init__(self):
        self.asked = False
        self._open = False
        self._before = None

    def __enter__(self) -> "Interrupts":
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that even the first Ctrl-C leaves."""
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def _handle(self, number: int, frame: object) -> None:
        again, self.asked = self.asked, True
        if again or self._open:
            raise KeyboardInterrupt
