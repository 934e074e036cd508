"""Puts the parts of the API together, starts them and ends them."""

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import psycopg2.extensions
import structlog
from prometheus_client import CollectorRegistry

from api_service.app import check_prefix, create_app
from api_service.database import Reader
from api_service.deadline import limited_wait
from api_service.health import DatabaseWatch
from api_service.metrics import ApiMetrics
from api_service.resources.docs import find_swagger_ui
from api_service.servers import Server, server_of, take_port
from api_service.servers.workers import Pulse, Workers, all_metrics, stop_without_parent
from api_service.settings import ApiProcessSettings
from libaggregator import logs
from libaggregator.admin import Check, Health, Heartbeat, open_admin_port
from libaggregator.build import DISTRIBUTION, BuildFacts, build_facts
from libaggregator.commands import on_first_signal
from libaggregator.metrics import process_registry
from libaggregator.storage.connections import open_reader

_HEARTBEAT_PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.05

log = structlog.get_logger(__name__)


def serve_until_stopped(settings: ApiProcessSettings) -> None:
    """Answer requests until SIGTERM or SIGINT; a second signal ends at once.

    While the database is away at the start it waits, with the admin port open and the API's port closed. Raises
    SettingsError or SchemaError if it can't begin with these settings or this database.
    """
    psycopg2.extensions.set_wait_callback(limited_wait(settings.database))
    if not find_swagger_ui():
        log.info("there is no page `docs`, Swagger UI is missing", install=f"pip install '{DISTRIBUTION}[docs]'")
    registry = process_registry()
    watch = DatabaseWatch(open_reader(settings.database, "aggregator-api health"))
    heartbeat = Heartbeat(_HEARTBEAT_PATIENCE_SECONDS)
    with take_port(settings.api) as bound:
        port = bound.getsockname()[1]
        server, worker_checks = _server(settings, registry, bound, heartbeat)
        on_first_signal(server.request_stop)
        progress = _Progress(server)
        health = Health(
            live={"loop": heartbeat.check, **worker_checks},
            ready={
                "database": watch.check,
                "listening": progress.check_listening,
                "stopping": progress.check_stopping,
            },
        )
        host, admin_port = settings.api.admin_host, settings.api.admin_port
        admin = open_admin_port("api", host, admin_port, health, registry)
        addresses = {
            "api": f"http://{settings.api.host}:{port}{settings.api.prefix}",
            "admin": f"http://{host}:{admin.port}",
        }
        admin.start()
        try:
            if _wait_for_schema(watch, server, heartbeat):
                server.run(partial(progress.tell_that_it_listens, addresses))
        finally:
            admin.stop()
    log.info("API stopped")


class _Progress:
    """How far a server has come."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._is_listening = False

    def tell_that_it_listens(self, addresses: Mapping[str, str]) -> None:
        self._is_listening = True
        log.info("API started", **addresses)

    def check_listening(self) -> str | None:
        """Return what is wrong, None once the port is listened on."""
        return None if self._is_listening else "the API does not listen yet"

    def check_stopping(self) -> str | None:
        """Return what is wrong, None until the process was told to stop."""
        return "the process was told to stop" if self._server.stop_requested else None


def _server(
    settings: ApiProcessSettings, registry: CollectorRegistry, bound: socket.socket, heartbeat: Heartbeat
) -> tuple[Server, Mapping[str, Check]]:
    """Return what answers on a port, with checks of its own; its metrics are in `registry`."""
    build = build_facts()
    if settings.api.workers == 1:
        return _server_in_this_process(settings, ApiMetrics(registry, build), build, bound, heartbeat.beat), {}
    check_prefix(settings.api)
    workers = Workers(partial(_work, settings), settings.api, bound, heartbeat)
    workers.register_metrics(registry)
    return workers, workers.checks(_HEARTBEAT_PATIENCE_SECONDS)


def _work(settings: ApiProcessSettings, bound: socket.socket, pulse: Pulse) -> None:
    """Answer requests as one of several workers."""
    logs.configure(settings.logging)
    psycopg2.extensions.set_wait_callback(limited_wait(settings.database))
    # the process that started this one waits before it tells it to stop
    settings = replace(settings, api=replace(settings.api, shutdown_delay=0.0))
    build = build_facts()
    metrics = ApiMetrics(CollectorRegistry(), build, shown=all_metrics())
    server = _server_in_this_process(settings, metrics, build, bound, pulse.beat)
    on_first_signal(server.request_stop)
    stop_without_parent(server)
    server.run(pulse.listens)


def _server_in_this_process(
    settings: ApiProcessSettings,
    metrics: ApiMetrics,
    build: BuildFacts,
    bound: socket.socket,
    beat: Callable[[], None],
) -> Server:
    reader = Reader(partial(open_reader, settings.database, "aggregator-api"), settings.database.prepare, metrics)
    app = create_app(settings.api, reader, metrics, build)
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
