"""Puts the parts of the API together, starts it and ends it."""

import time
from functools import partial

import psycopg2.extensions
import structlog

from api_service.app import Application, create_app
from api_service.database import Reader
from api_service.deadline import limited_wait
from api_service.health import DatabaseWatch
from api_service.metrics import ApiMetrics
from api_service.resources.docs import find_swagger_ui
from api_service.server import DrainingServer
from api_service.settings import ApiProcessSettings, ApiSettings
from libaggregator.admin import Health, Heartbeat, open_admin_port, port_error
from libaggregator.build import DISTRIBUTION, build_facts
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
    registry = process_registry()
    build = build_facts()
    metrics = ApiMetrics(registry, build)
    reader = Reader(
        partial(open_reader, settings.database, "aggregator-api"), settings.database.prepare, metrics.count_fault
    )
    watch = DatabaseWatch(open_reader(settings.database, "aggregator-api health"))
    heartbeat = Heartbeat(_HEARTBEAT_PATIENCE_SECONDS)
    server = _open_server(create_app(settings.api, reader, metrics, build), settings.api, heartbeat)
    if not find_swagger_ui():
        log.info("there is no page `docs`, Swagger UI is missing", install=f"pip install '{DISTRIBUTION}[docs]'")
    on_first_signal(server.request_stop)
    health = Health(
        live={"loop": heartbeat.check},
        ready={"database": watch.check, "listening": server.check_listening, "stopping": server.check_stopping},
    )
    host, port = settings.api.admin_host, settings.api.admin_port
    admin = open_admin_port("api", host, port, health, registry)
    admin.start()
    try:
        if _wait_for_schema(watch, server, heartbeat):
            server.listen()
            address = f"http://{settings.api.host}:{server.port}{settings.api.prefix}"
            log.info("API started", api=address, admin=f"http://{host}:{admin.port}")
            server.run()
    finally:
        admin.stop()
    log.info("API stopped")


def _open_server(app: Application, settings: ApiSettings, heartbeat: Heartbeat) -> DrainingServer:
    try:
        return DrainingServer(app, settings, heartbeat)
    except OSError as error:
        raise port_error("api.port", settings.host, settings.port, error) from None


def _wait_for_schema(watch: DatabaseWatch, server: DrainingServer, heartbeat: Heartbeat) -> bool:
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
