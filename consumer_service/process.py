"""Puts the consumer's parts together, starts it and ends it."""

import gc
import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from threading import Event, Thread
from typing import TYPE_CHECKING

import structlog
from peewee import Database

from consumer_service.allowlist import read_allowlist
from consumer_service.batch_spans import BatchSpans
from consumer_service.engines import engine_for
from consumer_service.loop_watchdog import LoopWatchdog
from consumer_service.metrics import ConsumerMetrics
from consumer_service.old_names import OLD_METRICS
from consumer_service.pipeline import Pipeline
from consumer_service.progress import ProgressWatch
from consumer_service.rejected_share import RejectedShare
from consumer_service.runner import BatchLimit, Outages, Runner
from consumer_service.settings import ConsumerProcessSettings, ConsumerSettings
from consumer_service.sources import MessageSource
from consumer_service.sources.loading import find_source
from consumer_service.statement_limit import StatementLimit
from consumer_service.writer import Writer
from libaggregator.admin import Health, Heartbeat, open_admin_port
from libaggregator.build import build_facts
from libaggregator.clock import utc_now
from libaggregator.memory import share_one_heap
from libaggregator.messages import Limits
from libaggregator.metrics import process_registry
from libaggregator.old_names import registry_with_old_names
from libaggregator.service_manager import kept_informed
from libaggregator.storage.connections import open_writer
from libaggregator.storage.faults import DATABASE_ERRORS, describe
from libaggregator.storage.schema import require_schema

if TYPE_CHECKING:
    from libaggregator.spans import Spans

_RETRY_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_MARGIN_SECONDS = 10.0
_COLLECT_AFTER = 100_000

log = structlog.get_logger(__name__)


def run_until_stopped(settings: ConsumerProcessSettings, stop: Event, spans: "Spans | None" = None) -> None:
    """Consume until `stop` is set or the source has ended; with `spans`, what is done is traced.

    Raises SettingsError or SchemaError if it can't begin with these settings or this database, and SourceFailed if the
    source can't go on; while database or broker are away it waits.
    """
    share_one_heap()
    _collect_seldom()
    registry = process_registry()
    shown = registry_with_old_names(registry, OLD_METRICS, settings.metrics)
    metrics = ConsumerMetrics(registry, build_facts())
    outages = Outages(metrics)
    heartbeat = Heartbeat(_patience(settings))
    metrics.loop_silent.set_function(heartbeat.silent_seconds)
    statement_limit = StatementLimit(settings.database.statement_timeout, heartbeat.beat)
    progress = ProgressWatch(settings.consumer.stalled_after, metrics, time.monotonic)
    rejected_share = RejectedShare(settings.consumer.max_rejected_share, settings.consumer.rejected_window, metrics)
    pipeline = pipeline_for(settings.consumer)
    database = open_writer(settings.database, "aggregator-consumer")
    statement_limit.watch(database)
    if spans:
        spans.watch(database)
    source = _made_source(settings, stop)

    def consume() -> None:
        writer = Writer(engine_for(database), utc_now)
        limit = BatchLimit(settings.consumer.max_batch, _longest_hold(settings))
        try:
            if not _wait_for_schema(database, outages, heartbeat, stop):
                return
            Runner(
                source=source,
                pipeline=pipeline,
                writer=writer,
                limit=limit,
                metrics=metrics,
                outages=outages,
                progress=progress,
                rejected_share=rejected_share,
                heartbeat=heartbeat,
                stop=stop,
                spans=_batch_spans(settings, spans),
            ).run()
        finally:
            source.close()
            database.close()

    health = Health(
        live={"loop": heartbeat.check},
        ready={
            **{part: partial(outages.problem, part) for part in ("database", "source")},
            "progress": progress.problem,
            "halted": rejected_share.problem,
        },
    )
    host, port = settings.consumer.admin_host, settings.consumer.admin_port
    admin = open_admin_port("consumer", host, port, health, shown)
    admin.start()
    log.info("consumer started", admin=f"http://{host}:{admin.port}")
    try:
        consumer = _Beside(consume)
        watchdog = LoopWatchdog(heartbeat, consumer.thread)
        timeout = settings.consumer.shutdown_timeout
        with kept_informed(health, stop.is_set, os.environ):
            if not consumer.run(stop, timeout, [statement_limit.look, watchdog.look]):
                # nothing was committed for what is in hand, so it comes again
                log.warning("the batch in hand is given up, it will come again", waited_seconds=timeout)
                os._exit(0)
    finally:
        admin.stop()
    log.info("consumer stopped")


def pipeline_for(settings: ConsumerSettings) -> Pipeline:
    """Return the pipeline of these settings; SettingsError if their allowlist can't be used."""
    return Pipeline(_limits(settings), _allowlist(settings), utc_now)


def _made_source(settings: ConsumerProcessSettings, stop: Event) -> MessageSource:
    """Return the source. A file system or a plug-in may block for ever, and signals have to be heard all the same."""
    made: list[MessageSource] = []
    name = settings.consumer.source
    if not _Beside(lambda: made.append(find_source(name)(settings))).run(stop, _LOOK_SECONDS):
        log.warning("stopped while the source was still being made", source=name)
        os._exit(0)
    return made[0]


def _batch_spans(settings: ConsumerProcessSettings, spans: "Spans | None") -> BatchSpans | None:
    if spans is None:
        return None
    from consumer_service.traced_batches import TracedBatches  # noqa: PLC0415 - it imports OpenTelemetry

    return TracedBatches(spans, settings)


def _collect_seldom() -> None:
    """Let the garbage collector run between batches rather than in them.

    A batch makes tens of thousands of objects that live until it is written and have no cycles. Looking through
    them again and again took a quarter of the time of a batch.
    """
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


def _patience(settings: ConsumerProcessSettings) -> float:
    """Return after how many seconds of silence the loop hangs: later than any call of the database is given up."""
    longest_call = max(settings.database.statement_timeout, settings.database.connect_timeout) + _MARGIN_SECONDS
    return max(settings.kafka.max_poll_interval, longest_call)


def _longest_hold(settings: ConsumerProcessSettings) -> float:
    """Return after how many seconds without a poll the records in hand are given to another consumer."""
    is_redis = settings.consumer.source == "redis"
    return settings.redis.claim_after if is_redis else settings.kafka.max_poll_interval


def _limits(settings: ConsumerSettings) -> Limits:
    return Limits(settings.max_message_bytes, settings.max_nesting, timedelta(seconds=settings.max_future_skew))


def _allowlist(settings: ConsumerSettings) -> frozenset[int] | None:
    if not settings.enable_org_allowlist:
        return None
    organizations = read_allowlist(settings.org_allowlist)
    if not organizations:
        log.warning("the allowlist names no organization, nothing will be stored", file=settings.org_allowlist)
    return organizations


def _wait_for_schema(database: Database, outages: Outages, heartbeat: Heartbeat, stop: Event) -> bool:
    """Return True as soon as the database is there with a schema that can be used, False if told to stop."""
    while True:
        try:
            require_schema(database)
            break
        except DATABASE_ERRORS as error:
            outages.began("database", describe(error))
            database.close()
        heartbeat.beat()
        if stop.wait(_RETRY_SECONDS):
            return False
    outages.ended("database")
    return True


class _Beside:
    """Runs `work` in a thread, so that signals are heard even while the database driver blocks in a call."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._errors: list[BaseException] = []
        self.thread = Thread(target=self._guarded, name="consumer", daemon=True)

    def run(self, stop: Event, shutdown_timeout: float, looks: Sequence[Callable[[], None]] = ()) -> bool:
        """Return True when the work is done, and call each of `looks` every second until `stop` is set.

        Returns False if the work is not done `shutdown_timeout` seconds after that. Raises what the work raises.
        """
        self.thread.start()
        while self.thread.is_alive() and not stop.is_set():
            self.thread.join(_LOOK_SECONDS)
            for look in looks:
                look()
        self.thread.join(shutdown_timeout)
        if self.thread.is_alive():
            return False
        if self._errors:
            raise self._errors[0]
        return True

    def _guarded(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._errors.append(error)
