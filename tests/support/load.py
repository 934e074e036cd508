"""A steady load on an API whose database has faults: each answer is the right one, or asks to come back later."""

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from tests.support.api_process import Api
from tests.support.deployment import PREFIX, fetch
from tests.support.waiting import eventually

Question = tuple[str, str, str]
"""Method, path relative to the prefix, and body of a request."""
Answers = Mapping[Question, tuple[int, bytes]]
"""Status and body that belong to each question."""

PATIENCE_SECONDS = 20
"""How long a client waits for an answer before it says that there is none."""
_PAUSE_SECONDS = 0.01
_REQUESTS_A_CONNECTION = 10
_RETRY_AFTER = "5"


@dataclass(frozen=True)
class _Asked:
    status: int
    body: bytes
    retry_after: str | None


def answers_of(api: Api, questions: Sequence[Question]) -> Answers:
    """Ask each question once; 503 fails, for it is nothing that other answers can be compared with."""
    connection = _connection(api)
    asked = {question: _ask(connection, question) for question in questions}
    connection.close()
    assert not [question for question, answer in asked.items() if answer.status >= 500]
    return {question: (answer.status, answer.body) for question, answer in asked.items()}


@dataclass
class Load:
    """Clients that ask questions at the same time and again and again, from `with` to its end.

    `expected` has the right answers and can be changed meanwhile; `/livez` and `/readyz` are asked too. What must not
    be is collected, and fails the test at the end of the block: an answer that is neither the right one nor 503 with
    `Retry-After`, none at all, a process that is not alive.
    """

    api: Api
    expected: Sequence[Answers]
    clients: int = 8
    counts: Counter[str] = field(default_factory=Counter)
    right_in_a_row: int = 0
    wrong: list[str] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=(number,)) for number in range(self.clients)]
        self._threads.append(threading.Thread(target=self._probe))
        for thread in self._threads:
            thread.start()
        try:
            self.wait_for_right(self.clients)
        except AssertionError:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        assert self.wrong == [] or error, f"{len(self.wrong)} wrong, among them {self.wrong[:3]}"
        assert self.counts["right"], "nothing was compared"

    def wait_for_right(self, count: int = 100) -> None:
        """Wait until so many right answers came in a row: every thread of the API is well."""
        with self._lock:
            self.right_in_a_row = 0
        self._wait(lambda: self.right_in_a_row >= count, f"{count} right answers")

    def wait_for_refused(self, count: int = 20) -> None:
        """Wait until so many requests more were answered with 503."""
        before = self.counts["refused"]
        self._wait(lambda: self.counts["refused"] >= before + count, f"{count} answers of 503")

    def wait_for_answers(self, count: int) -> None:
        """Wait until so many requests more were answered, right or with 503."""
        before = self._answered()
        self._wait(lambda: self._answered() >= before + count, f"{count} answers")

    def wait_until_ready(self, ready: bool = True) -> None:
        """Wait until `/readyz` says so."""
        name = "ready" if ready else "not ready"
        before = self.counts[name]
        self._wait(lambda: self.counts[name] > before, name)

    def _end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _answered(self) -> int:
        return self.counts["right"] + self.counts["refused"]

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        def met() -> bool:
            assert self.wrong or condition(), f"counted {dict(self.counts)}"
            return True

        eventually(met, 30, what)
        assert self.wrong == []

    def _ask_on(self, number: int) -> None:
        questions = list(self.expected[0])
        connection = _connection(self.api)
        asked = number
        while not self._over.wait(_PAUSE_SECONDS):
            question = questions[asked % len(questions)]
            asked += 1
            if asked % _REQUESTS_A_CONNECTION == 0:
                # several processes share the port, and each connection is of one of them
                connection.close()
            try:
                answer = _ask(connection, question)
            except (OSError, http.client.HTTPException) as error:
                self._note(question, f"no answer: {error!r}")
                return
            right = [answers[question] for answers in self.expected]
            if (answer.status, answer.body) in right:
                self._note(question, "right")
            elif (answer.status, answer.retry_after) == (503, _RETRY_AFTER):
                self._note(question, "refused")
            else:
                self._note(question, f"{answer}, right would be {right}")
        connection.close()

    def _note(self, question: Question, outcome: str) -> None:
        with self._lock:
            self.right_in_a_row = self.right_in_a_row + 1 if outcome == "right" else 0
            if outcome in ("right", "refused"):
                self.counts[outcome] += 1
            else:
                self.wrong.append(f"{question}: {outcome}")

    def _probe(self) -> None:
        while not self._over.wait(10 * _PAUSE_SECONDS):
            if (alive := fetch(self.api.admin_port, "/livez")).status != 200:
                self.wrong.append(f"/livez: {alive.status} {alive.text}")
            ready = self.api.readiness().status == 200
            self.counts["ready" if ready else "not ready"] += 1


def _connection(api: Api) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", api.port, timeout=PATIENCE_SECONDS)


def _ask(connection: http.client.HTTPConnection, question: Question) -> _Asked:
    method, path, body = question
    connection.request(method, PREFIX + path, body or None)
    response = connection.getresponse()
    return _Asked(response.status, response.read(), response.headers["Retry-After"])
