"""Being asked to stop: SIGTERM is noticed between two steps, so that the state can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def terminations() -> Generator[Callable[[], bool]]:
    """Gives a function that tells whether SIGTERM came inside; a second one ends the process as it would outside.

    Outside of the main thread, where Python takes no signals, it never did.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[int] = []
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL

    def note(number: int, _frame: Any) -> None:
        came.append(number)
        signal.signal(signal.SIGTERM, before)

    signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)
