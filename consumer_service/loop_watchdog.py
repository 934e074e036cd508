"""Tells once where the loop hangs, so that the cause is known before somebody restarts the process."""

import sys
import traceback
from threading import Thread

import structlog

from libaggregator.admin import Heartbeat

log = structlog.get_logger(__name__)


class LoopWatchdog:
    """Logs the stack of a thread when its heartbeat stays away, and when it is back."""

    def __init__(self, heartbeat: Heartbeat, thread: Thread) -> None:
        self._heartbeat = heartbeat
        self._thread = thread
        self._hangs = False

    def look(self) -> None:
        """Compare with the last look; to be called every second, from another thread."""
        problem = self._heartbeat.check()
        if problem and not self._hangs:
            log.error("the consumer hangs", problem=problem, stack=_stack_of(self._thread))
        elif self._hangs and not problem:
            log.info("the consumer goes on")
        self._hangs = problem is not None


def _stack_of(thread: Thread) -> str:
    """Return where a thread is, in the lines of a traceback: code alone, no variables."""
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)).rstrip() if frame else "the thread has ended"
