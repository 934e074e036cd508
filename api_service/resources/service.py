"""The service itself (`docs/rest.md`, section 4.1)."""

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from api_service.endpoints import Access, Endpoint, Tag
from libaggregator.build import BuildFacts

# the schema of workload recommendations is not part of this version
_DVO_VERSION = 0


class StatusAnswer(msgspec.Struct, frozen=True):
    """Nothing but that all is well."""

    status: str = "ok"


class Main:
    """The prefix itself."""

    endpoint = Endpoint("main", "GET", "", "Whether the API is there", Tag.SERVICE, Access.ANY_IDENTITY, StatusAnswer)

    def respond(self) -> StatusAnswer:
        """Say that all is well."""
        return StatusAnswer()


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """What is running: version, branch, commit and time of the build, and the schemas of the databases."""

    build_version: str = msgspec.field(name="BuildVersion")
    build_branch: str = msgspec.field(name="BuildBranch")
    build_commit: str = msgspec.field(name="BuildCommit")
    build_time: str = msgspec.field(name="BuildTime")
    utils_version: str = msgspec.field(name="UtilsVersion")
    ocp_db_version: str = msgspec.field(name="OCP_DB_version")
    dvo_db_version: str = msgspec.field(name="DVO_DB_version")


class InfoAnswer(msgspec.Struct, frozen=True):
    """What is running."""

    info: Info
    status: str = "ok"


class ServiceInfo:
    """What is running; `schema_version` is that of the database that was found at the start."""

    endpoint = Endpoint("info", "GET", "info", "What is running", Tag.SERVICE, Access.ANY_IDENTITY, InfoAnswer)

    def __init__(self, build: BuildFacts, schema_version: int) -> None:
        info = Info(
            build_version=build.version,
            build_branch=build.branch,
            build_commit=build.commit,
            build_time=build.time,
            # the library is released with the program
            utils_version=build.version,
            ocp_db_version=str(schema_version),
            dvo_db_version=str(_DVO_VERSION),
        )
        self._answer = InfoAnswer(info)

    def respond(self) -> InfoAnswer:
        """Tell what is running; the database is not asked."""
        return self._answer


class Metrics:
    """The metrics of the process, as on the admin port."""

    endpoint = Endpoint(
        "metrics",
        "GET",
        "metrics",
        "Metrics of Prometheus",
        Tag.SERVICE,
        Access.OPEN,
        bytes,
        content_type=CONTENT_TYPE_LATEST,
        volatile=True,
    )

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def respond(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self._registry)


class OpenApi:
    """The description of this API; `document` is the text of it."""

    endpoint = Endpoint(
        "openapi",
        "GET",
        "openapi.json",
        "This document",
        Tag.SERVICE,
        Access.OPEN,
        bytes,
        content_type="application/json",
    )

    def __init__(self, document: bytes) -> None:
        self._document = document

    def respond(self) -> bytes:
        """Return the document."""
        return self._document
