"""Puts the parts of the API together, starts them and ends them."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import psycopg2.extensions
import structlog
from prometheus_client import CollectorRegistry

from api_service.app import check_prefix, create_app
from api_service.database import Reader
from api_service.deadline import limited_wait
from api_service.health import DatabaseWatch
from api_service.metrics import DATABASE_AVAILABLE, LISTENING_WORKERS, WORKER_RESTARTS, ApiMetrics
from api_service.old_names import old_metrics
from api_service.resources.docs import find_swagger_ui
from api_service.servers import Server, require_free, server_of, take_port
from api_service.servers.tls import certificate_of
from api_service.servers.workers import Pulse, Workers, all_metrics, stop_when_told
from api_service.settings import ApiProcessSettings
from libaggregator import logs, tracing
from libaggregator.admin import Check, Health, Heartbeat, open_admin_port
from libaggregator.build import DISTRIBUTION, BuildFacts, build_facts
from libaggregator.commands import on_first_signal, refuse
from libaggregator.memory import share_one_heap
from libaggregator.metrics import process_registry
from libaggregator.old_names import registry_with_old_names
from libaggregator.service_manager import kept_informed
from libaggregator.settings import SettingsError
from libaggregator.storage.connections import open_reader

if TYPE_CHECKING:
    from peewee import Database

    from libaggregator.spans import Spans

_HEARTBEAT_PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.05

log = structlog.get_logger(__name__)


def serve_until_stopped(settings: ApiProcessSettings, spans: "Spans | None" = None) -> None:
    """Answer requests until SIGTERM or SIGINT; a second signal ends at once. With `spans`, requests are traced.

    While the database is away at the start it waits, with the admin port open and the API's port closed. Raises
    SettingsError or SchemaError if it can't begin with these settings or this database.
    """
    # whoever serves reads it again
    is_secure = certificate_of(settings.api) is not None
    share_one_heap()
    psycopg2.extensions.set_wait_callback(limited_wait(settings.database))
    if not find_swagger_ui():
        log.info("there is no page `docs`, Swagger UI is missing", install=f"pip install '{DISTRIBUTION}[docs]'")
    registry = process_registry()
    watch = DatabaseWatch(open_reader(settings.database, "aggregator-api health"))
    heartbeat = Heartbeat(_HEARTBEAT_PATIENCE_SECONDS)
    with take_port(settings.api) as bound:
        server, worker_checks = _server(settings, registry, bound, heartbeat, spans)
        on_first_signal(server.request_stop)
        health = Health(
            live={"loop": heartbeat.check, **worker_checks},
            ready={
                "database": watch.check,
                "listening": partial(_check_listening, server),
                "stopping": partial(_check_stopping, server),
            },
        )
        DATABASE_AVAILABLE.gauge(registry).set_function(lambda: watch.check() is None)
        shown = _shown(registry, settings)
        admin = open_admin_port("api", settings.api.admin_host, settings.api.admin_port, health, shown)
        addresses = {
            "api": _url(settings.api.host, bound.getsockname()[1], is_secure) + settings.api.prefix,
            "admin": _url(settings.api.admin_host, admin.port),
        }
        admin.start()
        try:
            with kept_informed(health, lambda: server.stop_requested, os.environ):
                if _wait_for_schema(watch, server, heartbeat):
                    require_free(settings.api, bound)
                    server.run(partial(log.info, "API started", **addresses))
        finally:
            admin.stop()
    log.info("API stopped")


def _url(host: str, port: int, is_secure: bool = False) -> str:
    scheme = "https" if is_secure else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _check_listening(server: Server) -> str | None:
    return None if server.is_listening else "the API does not listen"


def _check_stopping(server: Server) -> str | None:
    return "the process was told to stop" if server.stop_requested else None


def _server(
    settings: ApiProcessSettings,
    registry: CollectorRegistry,
    bound: socket.socket,
    heartbeat: Heartbeat,
    spans: "Spans | None",
) -> tuple[Server, Mapping[str, Check]]:
    """Return what answers on a port, with checks of its own; its metrics are in `registry`."""
    build = build_facts()
    if settings.api.workers == 1:
        metrics = ApiMetrics(registry, build, shown=_shown(registry, settings))
        server = _server_in_this_process(settings, metrics, build, bound, heartbeat.beat, spans=spans)
        LISTENING_WORKERS.gauge(registry).set_function(lambda: server.is_listening)
        WORKER_RESTARTS.counter(registry)
        return server, {}
    check_prefix(settings.api)
    workers = Workers(partial(_work, settings), settings.api, bound, heartbeat)
    workers.register_metrics(registry)
    return workers, workers.checks(_HEARTBEAT_PATIENCE_SECONDS)


def _shown(registry: CollectorRegistry, settings: ApiProcessSettings) -> CollectorRegistry:
    """Return what is shown of a registry; SettingsError if the settings of the old names can't be used."""
    return registry_with_old_names(registry, old_metrics(settings.api.prefix), settings.metrics)


def _work(settings: ApiProcessSettings, bound: socket.socket, pulse: Pulse) -> None:
    """Answer requests as one of several workers."""
    share_one_heap()
    logs.configure(settings.logging, tracing.log_processors(os.environ))
    psycopg2.extensions.set_wait_callback(limited_wait(settings.database))
    build = build_facts()
    metrics = ApiMetrics(CollectorRegistry(), build, shown=_shown(all_metrics(), settings))
    try:
        with tracing.opened("aggregator-api", os.environ) as spans:
            server = _server_in_this_process(settings, metrics, build, bound, pulse.beat, spans=spans)
            stop_when_told(server, pulse)
            server.run(pulse.listens)
    except SettingsError as error:
        refuse(*error.problems)


def _server_in_this_process(
    settings: ApiProcessSettings,
    metrics: ApiMetrics,
    build: BuildFacts,
    bound: socket.socket,
    beat: Callable[[], None],
    *,
    spans: "Spans | None",
) -> Server:
    def open_database() -> "Database":
        database = open_reader(settings.database, "aggregator-api")
        if spans:
            spans.watch(database)
        return database

    reader = Reader(open_database, settings.database.prepare, metrics)
    app = create_app(settings.api, reader, metrics, build, spans=spans)
    return server_of(settings.api)(app, metrics, settings.api, bound, beat)


def _wait_for_schema(watch: DatabaseWatch, server: Server, heartbeat: Heartbeat) -> bool:
    """Return True as soon as the database has a schema that can be used, False if told to stop.

    Raises SchemaError if it has another one.
    """
    watch.start()
    while not server.stop_requested:
        heartbeat.beat()
        if watch.failure:
            raise watch.failure
        if watch.schema_is_ours:
            return True
        time.sleep(_LOOK_SECONDS)
    return False
