"""The messages that ingest is measured with are what the figures say they are."""

from datetime import datetime

from benchmarks.crowd import Crowd
from benchmarks.rounds import make_rounds, shape_of
from libaggregator.messages import Limits, Message, decode

NOW = datetime(2026, 6, 1)
CLUSTERS = 50


def read(messages: list[bytes]) -> list[Message]:
    return [decode(message, Limits(), NOW) for message in messages]


def test_each_round_is_newer_and_of_the_same_clusters() -> None:
    rounds = make_rounds(CLUSTERS)
    for earlier, later in ((rounds.first, rounds.changed), (rounds.changed, rounds.same)):
        for before, after in zip(read(earlier), read(later), strict=True):
            assert (after.org_id, after.cluster) == (before.org_id, before.cluster)
            assert after.last_checked_at > before.last_checked_at
    assert len({message.cluster for message in read(rounds.first)}) == CLUSTERS


def test_the_second_round_has_other_texts_and_the_same_hits_the_third_one_the_same_bytes() -> None:
    rounds = make_rounds(CLUSTERS)
    for first, changed, same in zip(read(rounds.first), read(rounds.changed), read(rounds.same), strict=True):
        assert changed.report != first.report
        assert changed.report == same.report
        assert [(hit.component, hit.error_key, hit.details) for hit in changed.hits] == [
            (hit.component, hit.error_key, hit.details) for hit in first.hits
        ]


def test_messages_are_shaped_like_public_ones() -> None:
    shape = shape_of(make_rounds(1000).first)
    assert 5500 < shape["bytes"] < 7000
    assert 6 < shape["hits"] < 8
    assert 5 < shape["compression"] < 8


def test_a_crowd_knows_the_messages_of_its_clusters() -> None:
    crowd = Crowd(1000)
    number = 777
    (stored, changed, same) = read(
        [crowd.stored_message(number), crowd.changed_message(number, 1), crowd.same_message(number, 2)]
    )
    cluster = crowd.cluster(number)
    for message in (stored, changed, same):
        assert (message.org_id, message.cluster) == (cluster.org_id, cluster.cluster_id)
        assert len(message.hits) == len(stored.hits)
    assert stored.last_checked_at < changed.last_checked_at < same.last_checked_at
    assert stored.report == same.report != changed.report
    assert len(set(crowd.spread(100, 3))) == 100
