"""What the metrics of both processes count, under their own names and under the old ones."""

import math
from collections.abc import Sequence
from datetime import datetime

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from api_service.metrics import METRICS as API_METRICS
from api_service.metrics import ApiMetrics
from api_service.old_names import old_metrics
from consumer_service.metrics import METRICS as CONSUMER_METRICS
from consumer_service.metrics import ConsumerMetrics, OffsetMetrics
from consumer_service.old_names import OLD_METRICS
from consumer_service.pipeline import Accepted, Rejected, Skipped, SkipReason
from consumer_service.sources import Partition
from consumer_service.writer import Written
from libaggregator.build import BuildFacts
from libaggregator.messages import Limits, Reason, decode
from libaggregator.metrics import Metric
from libaggregator.old_names import registry_with_old_names
from libaggregator.settings import MetricsSettings, SettingsError
from tests.support.messages import payload, record

NOON = datetime(2026, 5, 4, 12)
NOW = 1_777_896_000.0
"""Seconds since 1970 at noon."""

HISTOGRAM = Metric("histogram", "x_seconds", "seconds", "Some seconds", buckets=(0.1, 0.5, 1))
VALUES = [0.05, 0.1, 0.1000001, 0.5, 0.7, 1.0, 1.5, 20.0]


def accepted(checked: str, timestamp: int | None = None) -> Accepted:
    value = payload(checked=checked)
    return Accepted(record(value, timestamp=timestamp), decode(value, Limits(), NOON))


def text_of(registry: CollectorRegistry) -> list[str]:
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


class TestBatchHistogram:
    def test_it_shows_what_a_histogram_of_the_library_shows_for_the_same_values(self) -> None:
        ours, theirs = CollectorRegistry(), CollectorRegistry()
        HISTOGRAM.batch_histogram(ours).observe(VALUES)
        expected = HISTOGRAM.histogram(theirs)
        for value in VALUES:
            expected.observe(value)
        assert text_of(ours) == text_of(theirs)

    def test_the_same_value_many_times_counts_as_often(self) -> None:
        once, each = CollectorRegistry(), CollectorRegistry()
        HISTOGRAM.batch_histogram(once).observe_times(8, 0.5)
        HISTOGRAM.batch_histogram(each).observe([0.5] * 8)
        assert text_of(once) == text_of(each)

    def test_batches_add_up_and_each_label_counts_for_itself(self) -> None:
        registry = CollectorRegistry()
        metric = Metric("histogram", "y_seconds", "seconds", "Some seconds", ("step",), (1,))
        histogram = metric.batch_histogram(registry)
        histogram.observe([0.5, 2], "a")
        histogram.observe([0.25], "a")
        histogram.show("b")
        assert registry.get_sample_value("y_seconds_count", {"step": "a"}) == 3
        assert registry.get_sample_value("y_seconds_sum", {"step": "a"}) == 2.75
        assert registry.get_sample_value("y_seconds_bucket", {"step": "a", "le": "1.0"}) == 2
        assert registry.get_sample_value("y_seconds_count", {"step": "b"}) == 0


class Counted:
    """The metrics of a consumer whose clock stands at noon."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.now = NOW
        self.metrics = ConsumerMetrics(self.registry, BuildFacts("1.2", "main", "abc"), lambda: self.now)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"aggregator_consumer_{name}", labels)

    def count(
        self, stored: Sequence[Accepted] = (), skipped: Sequence[Skipped] = (), rejected: Sequence[Rejected] = ()
    ) -> None:
        self.metrics.count_batch(Written(list(stored), [], list(rejected)), skipped, seconds=8)


@pytest.fixture
def counted() -> Counted:
    return Counted()


class TestBatchesOfTheConsumer:
    def test_each_message_is_counted_by_outcome_and_reason(self, counted: Counted) -> None:
        stale, bad = Skipped(record(b""), SkipReason.STALE), Rejected(record(b""), Reason.NOT_JSON, "")
        counted.count([accepted("2026-05-04T11:00:00Z")], [stale, stale], [bad])
        assert counted.value("messages_total", outcome="stored", reason="") == 1
        assert counted.value("messages_total", outcome="skipped", reason="stale") == 2
        assert counted.value("messages_total", outcome="rejected", reason="not_json") == 1
        assert counted.value("batch_messages_sum") == 4

    def test_each_message_has_the_same_share_of_the_time_of_its_batch(self, counted: Counted) -> None:
        counted.count(
            skipped=[Skipped(record(b""), SkipReason.STALE)] * 3, rejected=[Rejected(record(b""), Reason.NOT_JSON, "")]
        )
        assert counted.value("message_seconds_sum", outcome="skipped") == 6
        assert counted.value("message_seconds_count", outcome="rejected") == 1
        assert counted.value("message_seconds_sum", outcome="rejected") == 2

    def test_end_to_end_is_from_the_time_of_the_record_if_it_has_one(self, counted: Counted) -> None:
        at_noon = int(NOW * 1000)
        times = [at_noon - 2000, None, at_noon + 5000]
        counted.count([accepted("2026-05-04T11:00:00Z", timestamp) for timestamp in times])
        assert counted.value("end_to_end_seconds_count") == 2
        assert counted.value("end_to_end_seconds_sum") == 2
        assert counted.value("end_to_end_seconds_bucket", le="1.0") == 1

    def test_results_have_the_age_of_their_check(self, counted: Counted) -> None:
        counted.count([accepted("2026-05-04T11:59:00Z"), accepted("2026-05-04T11:00:00Z")])
        assert counted.value("result_age_seconds_sum") == 3660
        assert counted.value("result_age_seconds_bucket", le="60.0") == 1

    def test_the_newest_result_grows_older_until_a_newer_one_comes(self, counted: Counted) -> None:
        assert math.isnan(counted.value("newest_result_age_seconds") or 0)
        counted.count([accepted("2026-05-04T11:59:00Z")])
        counted.now += 40
        counted.count([accepted("2026-05-04T11:00:00Z")])
        assert counted.value("newest_result_age_seconds") == 100
        counted.count([accepted("2026-05-04T12:00:30Z")])
        assert counted.value("newest_result_age_seconds") == 10
        assert counted.value("last_stored_timestamp_seconds") == NOW + 40

    def test_a_batch_without_a_stored_message_says_nothing_of_results(self, counted: Counted) -> None:
        counted.count(skipped=[Skipped(record(b""), SkipReason.STALE)])
        assert math.isnan(counted.value("newest_result_age_seconds") or 0)
        assert counted.value("last_stored_timestamp_seconds") == 0

    def test_what_runs_is_in_the_labels_of_the_build(self, counted: Counted) -> None:
        assert counted.value("build_info", version="1.2", branch="main", commit="abc") == 1

    def test_what_has_closed_labels_is_there_from_the_start(self, counted: Counted) -> None:
        samples = [sample for family in counted.registry.collect() for sample in family.samples]
        names = {sample.name for sample in samples}
        by_partition = {"lag_messages", "handled_offset", "committed_offset"}
        expected = {metric.name for metric in CONSUMER_METRICS if metric.kind != "histogram"}
        expected |= {f"{metric.name}_count" for metric in CONSUMER_METRICS if metric.kind == "histogram"}
        # the parts that can be away are shown by what uses them
        missing = {f"aggregator_consumer_{name}" for name in (*by_partition, "available")}
        assert expected - names == missing
        assert {sample.labels["part"] for sample in samples if "part" in sample.labels} == {"database", "source"}
        reasons = {sample.labels["reason"] for sample in samples if "reason" in sample.labels}
        assert reasons == {"", *SkipReason, *Reason}


class TestOffsets:
    PARTITION = Partition("results", 3)

    def test_a_commit_is_shown_when_the_broker_has_it(self, counted: Counted) -> None:
        offsets = OffsetMetrics(counted.metrics)
        place = {"topic": "results", "partition": "3"}
        offsets.handled({self.PARTITION: 7})
        offsets.committed({self.PARTITION: 7})
        assert counted.value("handled_offset", **place) == 7
        assert counted.value("committed_offset", **place) is None
        offsets.committed({self.PARTITION: 9})
        assert counted.value("committed_offset", **place) == 7
        offsets.arrived()
        assert counted.value("committed_offset", **place) == 9

    def test_a_partition_that_is_read_elsewhere_is_not_shown_any_more(self, counted: Counted) -> None:
        offsets = OffsetMetrics(counted.metrics)
        other = Partition("results", 4)
        offsets.handled({self.PARTITION: 7, other: 8})
        offsets.committed({self.PARTITION: 7, other: 8})
        offsets.arrived()
        offsets.keep({other})
        for name in ("handled_offset", "committed_offset"):
            assert counted.value(name, topic="results", partition="3") is None
            assert counted.value(name, topic="results", partition="4") == 8


def old_lines(registry: CollectorRegistry, **settings: str) -> list[str]:
    shown = registry_with_old_names(
        registry, [*OLD_METRICS, *old_metrics("/api/v1/")], MetricsSettings(legacy_names=True, **settings)
    )
    return [line for line in text_of(shown) if not line.startswith(("aggregator_", "#"))]


class TestOldNames:
    def test_of_the_consumer_add_up_what_is_counted(self, counted: Counted) -> None:
        stale, bad = Skipped(record(b""), SkipReason.STALE), Rejected(record(b""), Reason.NOT_JSON, "")
        counted.count([accepted("2026-05-04T11:58:00Z")] * 2, [stale], [bad])
        lines = old_lines(counted.registry)
        assert {"consumed_messages 4.0", "consuming_errors 1.0", "written_reports 2.0"} <= set(lines)
        assert "successful_messages_processing_time_sum 6.0" in lines
        assert "successful_messages_processing_time_count 3.0" in lines
        assert 'successful_messages_processing_time_bucket{le="2.0"} 3.0' in lines
        assert "failed_messages_processing_time_sum 2.0" in lines
        assert "failed_messages_processing_time_count 1.0" in lines
        assert "last_checked_timestamp_lag_minutes_sum 4.0" in lines
        assert "last_checked_timestamp_lag_minutes_count 2.0" in lines
        assert 'last_checked_timestamp_lag_minutes_bucket{le="1.0"} 0.0' in lines
        assert 'last_checked_timestamp_lag_minutes_bucket{le="2.0"} 2.0' in lines

    def test_of_the_api_are_by_path_with_prefix_and_by_status(self) -> None:
        registry = CollectorRegistry()
        metrics = ApiMetrics(registry, BuildFacts())
        for route, status in [("/info", "200"), ("/info", "503"), ("/", "200"), ("(unknown path)", "404")]:
            metrics.count_request(route, "GET", status, 0.5)
        lines = old_lines(registry)
        assert 'api_endpoints_requests{endpoint="/api/v1/info"} 2.0' in lines
        assert 'api_endpoints_requests{endpoint="/api/v1/"} 1.0' in lines
        assert 'api_endpoints_response_time_sum{endpoint="/api/v1/info"} 1.0' in lines
        assert 'api_endpoints_response_time_bucket{endpoint="/api/v1/info",le="0.5"} 2.0' in lines
        assert 'api_endpoints_status_codes{status_code="200"} 2.0' in lines
        assert 'api_endpoints_status_codes{status_code="404"} 1.0' in lines
        assert not any("unknown" in line for line in lines)

    def test_are_there_beside_ours_in_a_text_that_prometheus_can_read(self, counted: Counted) -> None:
        shown = registry_with_old_names(counted.registry, OLD_METRICS, MetricsSettings(legacy_names=True))
        names = {family.name for family in text_string_to_metric_families(generate_latest(shown).decode())}
        assert {old.name for old in OLD_METRICS} <= names
        assert "aggregator_consumer_messages" in names

    def test_begin_with_the_namespace_and_ours_do_not(self, counted: Counted) -> None:
        lines = old_lines(counted.registry, namespace="insights_1")
        assert "insights_1_consumed_messages 0.0" in lines
        assert all(line.startswith("insights_1_") for line in lines)

    def test_are_not_there_unless_they_are_asked_for(self, counted: Counted) -> None:
        shown = registry_with_old_names(counted.registry, OLD_METRICS, MetricsSettings(namespace="x"))
        assert "consumed_messages" not in generate_latest(shown).decode()

    @pytest.mark.parametrize("namespace", ["1st", "with-hyphen", "a b", "ž", "a:b", "x\n"])
    def test_with_a_namespace_that_can_not_be_one_nothing_starts(self, namespace: str) -> None:
        with pytest.raises(SettingsError) as caught:
            registry_with_old_names(CollectorRegistry(), OLD_METRICS, MetricsSettings(namespace=namespace))
        assert str(caught.value).startswith("metrics.namespace: expected ")
        assert repr(namespace) in str(caught.value)


def test_names_say_unit_and_kind_as_prometheus_wants_them() -> None:
    for metric in (*CONSUMER_METRICS, *API_METRICS):
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.unit
        if metric.unit == "seconds":
            assert metric.name.endswith("_seconds")
