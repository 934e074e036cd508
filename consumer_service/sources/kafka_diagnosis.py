"""Why a client of Kafka gets no records, in one line each: it waits for brokers without a word."""

import time

from kafka import KafkaConsumer
from kafka.coordinator.base import MemberState

from consumer_service.kafka_client import NetworkClient
from consumer_service.settings import KafkaSettings

_SILENCE_SECONDS = 10.0
"""How long a broker may say nothing that is asked; it answers in a tenth of a second, or sends a part of its answer."""


def broker_problem(client: NetworkClient, settings: KafkaSettings) -> str | None:
    """Return that no broker is connected, and why not; None if one is."""
    if any(client.connected(broker.node_id) for broker in client.cluster.brokers()):
        return None
    return f"no connection to {', '.join(settings.bootstrap_servers)}{client.failure}"


def coordinator_problem(client: NetworkClient, settings: KafkaSettings) -> str | None:
    """Return that the broker that coordinates the group is not connected, and why not; None if it is."""
    coordinator = client.cluster.get_coordinator(settings.group)
    if coordinator is not None and client.connected(coordinator):
        return None
    return f"no connection to the coordinator of group {settings.group!r}{client.failure}"


def missing_topic_problem(client: NetworkClient, topic: str) -> str:
    """Return why a topic is not among those that the brokers told of."""
    if topic in client.cluster.unauthorized_topics:
        return f"not authorized to read topic {topic!r}"
    return f"topic {topic!r} does not exist yet"


def silence_problem(consumer: KafkaConsumer, client: NetworkClient) -> str | None:
    """Return which broker does not answer; one that is frozen takes requests and keeps its connections."""
    if consumer.group_metadata().state is not MemberState.STABLE:
        # brokers answer those that join a group when all members have
        return None
    silent = {node: seconds for node, seconds in _silences(client).items() if seconds > _SILENCE_SECONDS}
    if not silent:
        return None
    longest = max(silent, key=silent.__getitem__)
    return f"no answer from {longest} for {silent[longest]:.0f} s"


def _silences(client: NetworkClient) -> dict[str, float]:
    """Return for each broker with an unanswered request how many seconds nothing has come since it was sent."""
    now = time.monotonic()
    silences: dict[str, float] = {}
    for connection in list(client._manager._conns.values()):
        transport = connection.transport
        # the client's thread answers them meanwhile
        oldest = next(iter(connection.in_flight_requests.copy()), None)
        if transport is not None and oldest is not None:
            _, _, sent_at, *_ = oldest
            broker = client.cluster.broker_metadata(connection.node_id)
            name = f"{broker.host}:{broker.port}" if broker else f"broker {connection.node_id}"
            silences[name] = max(silences.get(name, 0.0), now - max(sent_at, transport.last_read))
    return silences
