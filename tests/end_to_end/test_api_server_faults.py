"""The API while its server fails in every way there is: each answer is right or 503, and all of it comes back."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.api_faults import ASKED, FROZEN_AT_LEAST, PASSWORD, ROLE, SERVERS, THREADS, Scene, start, start_on
from tests.support.api_process import Api, slow_requests
from tests.support.load import Answers, Load, answers_of
from tests.support.network import Wire
from tests.support.postgresql import table_locked
from tests.support.processes import Processes
from tests.support.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.long]


@pytest.fixture(scope="module", params=SERVERS)
def api(request: pytest.FixtureRequest, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Yield one process, on each HTTP server in turn, that is never started again."""
    processes = Processes(tmp_path_factory.mktemp("api"))
    try:
        yield start(processes, scene.reading_url, request.param).wait_until_it_listens()
        (process,) = processes.started
        assert process.exit_code is None, process.output
        assert process.stop() == 0
        assert "Traceback" not in process.output
        assert PASSWORD not in process.output
    finally:
        processes.kill_all()


@pytest.fixture
def right(api: Api) -> Answers:
    """Return the answers of the API to all questions before anything is broken."""
    answers = answers_of(api, ASKED)
    assert {status for status, _ in answers.values()} <= {200, 404}
    assert sum(status == 200 for status, _ in answers.values()) > len(ASKED) / 2
    return answers


@contextlib.contextmanager
def loaded(scene: Scene, api: Api, right: Answers) -> Iterator[Load]:
    """Yield a load; at the end of the block all must be well, without a restart and with no connection too many."""
    with Load(api, [right]) as load:
        yield load
        load.wait_until_ready()
        load.wait_for_right()
        most = THREADS * max(SERVERS.values()) + 1
        eventually(lambda: 0 < scene.count_connections() <= most, 10, "connections of the API")


# the server goes away


@pytest.mark.parametrize("how", ["shut_down_at_once", "kill", "stop"])
def test_a_server_that_goes_away_again_and_again(scene: Scene, api: Api, right: Answers, how: str) -> None:
    with loaded(scene, api, right) as load:
        for _ in range(2):
            getattr(scene.server, how)()
            load.wait_for_refused()
            load.wait_until_ready(False)
            scene.server.start()
            load.wait_for_right()


def test_connections_that_are_ended_again_and_again(scene: Scene, api: Api, right: Answers) -> None:
    with loaded(scene, api, right) as load:
        ended = 0
        for _ in range(15):
            ended += scene.end_connections()
            load.wait_for_answers(20)
        assert ended > 15


def test_a_connection_that_is_ended_while_idle_costs_no_request(scene: Scene, api: Api, right: Answers) -> None:
    for question, answer in right.items():
        scene.end_connections()
        eventually(lambda: scene.count_connections() <= 1, 10, "an end of the connections")
        assert answers_of(api, [question]) == {question: answer}


# the server says nothing


def test_a_server_that_is_frozen(scene: Scene, api: Api, right: Answers) -> None:
    with loaded(scene, api, right) as load:
        with scene.server.frozen():
            for _ in range(FROZEN_AT_LEAST):
                load.wait_for_refused()
            load.wait_until_ready(False)
        load.wait_for_right()


@pytest.mark.parametrize("server", SERVERS)
def test_a_network_that_swallows_everything_and_one_that_forgets_its_connections(
    scene: Scene, processes: Processes, server: str
) -> None:
    wire = Wire(scene.server.port)
    api = start(processes, scene.reading_url_at(wire.port), server).wait_until_it_listens()
    with contextlib.closing(wire), Load(api, [answers_of(api, ASKED)]) as load:
        with wire.silent():
            load.wait_for_refused(50)
            load.wait_until_ready(False)
        load.wait_until_ready()
        load.wait_for_right()
        wire.forget()
        load.wait_for_refused(1)
        load.wait_for_right()
        load.wait_until_ready()
    assert api.process.stop() == 0


def test_with_one_thread_many_clients_are_answered_while_the_database_is_silent(
    scene: Scene, processes: Processes
) -> None:
    """One after another they would wait for the time limit each, four times as long as they do."""
    wire = Wire(scene.server.port)
    api = start(processes, scene.reading_url_at(wire.port), API__THREADS="1").wait_until_it_listens()
    path = "organizations"
    assert api.get(path).status == 200
    # Answer.status is 0 for a client that gave up after ten seconds
    with contextlib.closing(wire), ThreadPoolExecutor(40) as clients:
        with wire.silent():
            answers = list(clients.map(api.get, [path] * 40))
        assert {(answer.status, answer.headers.get("Retry-After")) for answer in answers} == {(503, "5")}
        eventually(lambda: api.get(path).status == 200, 10, "an answer")


def test_one_request_finds_out_for_all_threads_that_the_network_forgot_their_connections(
    scene: Scene, processes: Processes
) -> None:
    wire = Wire(scene.server.port)
    api = start(processes, scene.reading_url_at(wire.port)).wait_until_it_listens()
    with contextlib.closing(wire):
        with slow_requests(scene.url) as wait_for:
            waiting = [api.begin("organizations") for _ in range(THREADS)]
            wait_for(THREADS)
        assert [connection.getresponse().status for connection in waiting] == [200] * THREADS
        wire.forget()
        assert api.get("organizations").status == 503
        assert [api.get("organizations").status for _ in range(3 * THREADS)] == [200] * 3 * THREADS
    for connection in waiting:
        connection.close()


def test_of_several_hosts_one_that_says_nothing_is_passed_over(scene: Scene, processes: Processes) -> None:
    silent = Wire(scene.server.port)
    url = scene.reading_url.replace("@", f"@127.0.0.1:{silent.port},")
    with contextlib.closing(silent), silent.silent():
        api = start(processes, url).wait_until_it_listens()
        with Load(api, [answers_of(start_on(processes, scene), ASKED)]) as load:
            load.wait_for_right()
            load.wait_until_ready()
        assert silent.accepted > 1


# the server is slow, full, or lets nobody in


def test_a_table_that_somebody_has_locked(scene: Scene, api: Api, right: Answers) -> None:
    with loaded(scene, api, right) as load:
        with table_locked(scene.url, "report", "ACCESS EXCLUSIVE"):
            load.wait_for_refused(10)
            assert api.readiness().status == 200
        load.wait_for_right()


def test_statements_that_an_administrator_cancels(scene: Scene, api: Api, right: Answers) -> None:
    waiting = f"FROM pg_stat_activity WHERE usename = '{ROLE}' AND wait_event_type = 'Lock'"
    with loaded(scene, api, right) as load, table_locked(scene.url, "report", "ACCESS EXCLUSIVE"):
        before = load.counts["refused"]
        eventually(
            lambda: any(cancelled for (cancelled,) in scene.run(f"SELECT pg_cancel_backend(pid) {waiting}")),
            10,
            "a statement to cancel",
        )
        eventually(lambda: load.counts["refused"] > before, 10, "an answer of 503")


def test_every_connection_of_the_server_is_taken(scene: Scene, api: Api, right: Answers) -> None:
    with loaded(scene, api, right) as load, scene.all_slots_taken():
        load.wait_for_refused()
        load.wait_until_ready(False)


def test_the_api_is_started_when_every_connection_is_taken(scene: Scene, processes: Processes) -> None:
    with scene.all_slots_taken():
        api = start(processes, scene.reading_url)
        api.process.wait_for_log("database unavailable")
        assert "connection slots" in api.readiness().json["checks"]["database"]
    api.wait_until_it_listens()
    with Load(api, [answers_of(api, ASKED)]) as load:
        load.wait_for_right()


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ("NOLOGIN", "LOGIN"),
        ("PASSWORD 'another'", f"PASSWORD '{PASSWORD}'"),
        ("CONNECTION LIMIT 1", "CONNECTION LIMIT -1"),
        ("VALID UNTIL '2000-01-01'", "VALID UNTIL 'infinity'"),
    ],
)
def test_a_role_that_is_not_let_in_any_more(scene: Scene, api: Api, right: Answers, change: str, back: str) -> None:
    with loaded(scene, api, right) as load:
        scene.server.execute(f"ALTER ROLE {ROLE} {change}")
        try:
            scene.end_connections()
            load.wait_for_refused()
        finally:
            scene.server.execute(f"ALTER ROLE {ROLE} {back}")
