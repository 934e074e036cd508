"""The API on a replica that lags, goes, or has its statements in the way: each answer is right or 503."""

from collections.abc import Iterator

import pytest

from tests.support.api_faults import ASKED, ROLE, SLOTS, Scene, query, start, start_on
from tests.support.load import Load, answers_of
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import Processes
from tests.support.replica import PostgresqlReplica
from tests.support.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.long]


class Replicated:
    """A primary and a replica from which an API reads."""

    def __init__(self, scene: Scene, replica: PostgresqlServer, processes: Processes) -> None:
        self.scene = scene
        self.replica = replica
        self.url = scene.url.replace(str(scene.server.port), str(replica.port))
        # nobody listens at the port of the primary: the API must not need it
        self.settings = {"DATABASE__READ_URL": scene.reading_url_at(replica.port)}
        self.api = start(processes, "postgresql://127.0.0.1:1/none", **self.settings).wait_until_it_listens()

    def pause(self) -> None:
        query(self.url, "SELECT pg_wal_replay_pause()")
        eventually(lambda: query(self.url, "SELECT pg_get_wal_replay_pause_state()") == [("paused",)], 10, "a pause")

    def resume(self) -> None:
        query(self.url, "SELECT pg_wal_replay_resume()")


@pytest.fixture
def replicated(scene: Scene, processes: Processes) -> Iterator[Replicated]:
    """Yield a primary and a replica that follows it at once, and cancels what is in the way."""
    replica = PostgresqlReplica(scene.server, {"max_standby_streaming_delay": "0", "max_connections": str(SLOTS)})
    try:
        replica.start()
        yield Replicated(scene, replica, processes)
    finally:
        replica.close()
        scene.run("UPDATE report SET report = '{}' WHERE report <> '{}'")


def test_a_replica_that_lags_is_right_for_what_it_has_and_follows_when_it_can(
    replicated: Replicated, processes: Processes
) -> None:
    before = answers_of(replicated.api, ASKED)
    replicated.pause()
    replicated.scene.run("""
        UPDATE report SET report = '{"reports": ["new"]}', last_checked_at = last_checked_at + interval '1 hour';
        UPDATE rule_hit SET template_data = '{"new": true}';
        UPDATE recommendation SET created_at = created_at + interval '1 hour'
    """)
    after = answers_of(start_on(processes, replicated.scene), ASKED)
    changed = [question for question in ASKED if before[question] != after[question]]
    assert len(changed) > 4
    with Load(replicated.api, [before]) as load:
        load.wait_for_right()
        assert load.counts["refused"] == 0
        load.expected = [before, after]
        replicated.resume()
        eventually(lambda: answers_of(replicated.api, ASKED) == after, 10, "what is new")
        load.expected = [after]
        load.wait_for_right()


def test_a_replica_that_is_away_and_one_that_lets_nobody_in_yet_and_one_that_becomes_the_primary(
    replicated: Replicated,
) -> None:
    replica = replicated.replica
    with Load(replicated.api, [answers_of(replicated.api, ASKED)]) as load:
        replica.kill()
        load.wait_for_refused()
        load.wait_until_ready(False)
        replica.start(hot_standby="off")
        eventually(lambda: "not accepting" in replicated.api.readiness().text, 10, "another reason in /readyz")
        load.wait_for_refused()
        replica.stop()
        replica.start()
        load.wait_until_ready()
        load.wait_for_right()
        query(replicated.url, "SELECT pg_promote()")
        assert query(replicated.url, "SELECT pg_is_in_recovery()") == [(False,)]
        load.wait_for_right()


def test_a_statement_that_is_in_the_way_of_a_replica_is_asked_for_again(
    replicated: Replicated, processes: Processes
) -> None:
    """SQLSTATE 40001; a policy makes one question wait in the middle of its statement."""
    scene = replicated.scene
    scene.run(
        f"ALTER TABLE rule_disable ENABLE ROW LEVEL SECURITY; CREATE POLICY slow ON rule_disable TO {ROLE}"
        " USING (pg_sleep(30) IS NOT NULL)"
    )
    try:
        url = scene.reading_url_at(replicated.replica.port)
        api = start(processes, url, DATABASE__READ_TIMEOUT="60").wait_until_it_listens()
        asleep = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        eventually(lambda: query(replicated.url, "SELECT 1 FROM pg_policy"), 10, "the policy on the replica")
        request = api.begin("rules/organizations/1/disabled_system_wide")
        eventually(lambda: query(replicated.url, asleep), 10, "a statement that runs")
    finally:
        scene.run("DROP POLICY slow ON rule_disable; ALTER TABLE rule_disable DISABLE ROW LEVEL SECURITY")
    answer = request.getresponse()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert "conflict with recovery" in replicated.replica.log
    request.close()
    eventually(lambda: api.get("rules/organizations/1/disabled_system_wide").status == 200, 10, "an answer")
