"""A connection of waitress whose thread is let finish what it sends."""

from typing import Any

from waitress.channel import HTTPChannel


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection for which the loop sends only what its thread has left.

    waitress 3.0.2 has the loop wait until it can write as soon as a thread has something to send. That is at once, and
    as long as the thread sends, the loop may not: it asks again and again, and the thread does not get the
    interpreter back after its call of the kernel.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what waitress gives."""
        self._thread_is_sending = False
        super().__init__(*arguments, **options)

    def writable(self) -> bool:
        """Say whether the loop is to tell when something can be written; a thread that leaves something wakes it."""
        return bool(super().writable()) and not self._thread_is_sending

    def _flush_some(self, do_close: bool = True) -> bool:
        if do_close:
            # by the loop: threads leave closing to it
            return bool(super()._flush_some(do_close))
        self._thread_is_sending = True
        try:
            return bool(super()._flush_some(do_close))
        finally:
            self._thread_is_sending = False
