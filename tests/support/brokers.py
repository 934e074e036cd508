"""The brokers that tests run against; both have topics and can be stopped and started on the same port."""

from examples.demo.broker import EmbeddedBroker
from tests.support.kafka import ApacheKafka
from tests.support.topics import Topics


class EmbeddedTestBroker(EmbeddedBroker, Topics):
    """The embedded broker, with topics for tests; stopping it loses them."""

    session_timeout = "2"
    # it counts end offsets wrong when a batch holds several records
    producer_batch_bytes = 0


AnyBroker = EmbeddedTestBroker | ApacheKafka
