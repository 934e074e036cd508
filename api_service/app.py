"""The WSGI application: every path, what stands behind it, and what happens around it."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import falcon

from api_service import openapi
from api_service.auth import authenticator
from api_service.database import Reader
from api_service.endpoints import Resource, ServedResource
from api_service.errors import JSON_CONTENT, add_error_handlers
from api_service.metrics import ApiMetrics
from api_service.middleware import AccessLog, EmptySegments, RequestIds
from api_service.resources.acknowledgements import AcknowledgementOfRule, Acknowledgements
from api_service.resources.disabled import (
    DisabledClusters,
    DisabledRules,
    DisabledRulesOfClusters,
    ReasonsOfUser,
)
from api_service.resources.docs import Docs, find_swagger_ui
from api_service.resources.organizations import ClustersOfOrganization, Organizations
from api_service.resources.recommendations import RecommendationsByCluster, RecommendationsByRule
from api_service.resources.report import ClusterReport, ClusterReportInfo, RuleOfReport
from api_service.resources.reports import ReportsOfBody, ReportsOfPath
from api_service.resources.rules import ClustersDetail, RatingOfRule
from api_service.resources.service import Main, Metrics, OpenApi, ServiceInfo
from api_service.resources.votes import VoteOfUser
from api_service.resources.writes import WRITE_PATHS
from api_service.routing import Request, Router, WritePath
from api_service.settings import ApiSettings
from libaggregator.build import BuildFacts
from libaggregator.clock import utc_now
from libaggregator.settings import SettingsError
from libaggregator.storage.models import SCHEMA_VERSION

if TYPE_CHECKING:
    from api_service.request_spans import RequestSpans
    from libaggregator.spans import Spans

Application = falcon.App[falcon.Request, falcon.Response]

_PREFIX = re.compile(r"/(?:[A-Za-z0-9._~-]+/)*")


def create_app(
    settings: ApiSettings,
    reader: Reader,
    metrics: ApiMetrics,
    build: BuildFacts,
    clock: Callable[[], datetime] = utc_now,
    *,
    spans: "Spans | None" = None,
) -> Application:
    """Return the application that answers under `settings.prefix`.

    `clock` returns naive UTC. With `spans`, requests are traced. Raises SettingsError if the prefix can't be one.
    """
    check_prefix(settings)
    resources = resources_of(settings, reader, metrics, build, clock)
    endpoints = [*(resource.endpoint for resource in resources), OpenApi.endpoint]
    document = openapi.document(endpoints, settings.prefix, build.version, settings.auth != "none")
    authenticate = authenticator(settings.auth)
    app: Application = falcon.App(
        media_type=JSON_CONTENT,
        request_type=Request,
        middleware=[*_request_spans(spans), RequestIds(), AccessLog(metrics), EmptySegments()],
        router=Router(),
    )
    app.req_options.strip_url_path_trailing_slash = True
    add_error_handlers(app)
    served: list[Resource] = [*resources, OpenApi(document)]
    if swagger_ui := find_swagger_ui():
        served.append(Docs(swagger_ui))
    for resource in served:
        app.add_route(settings.prefix + resource.endpoint.path, ServedResource(resource, authenticate))
    for path in WRITE_PATHS:
        app.add_route(settings.prefix + path, WritePath(path))
    return app


def _request_spans(spans: "Spans | None") -> Sequence["RequestSpans"]:
    if spans is None:
        return ()
    from api_service import request_spans  # noqa: PLC0415 - it imports OpenTelemetry

    return (request_spans.RequestSpans(spans),)


def check_prefix(settings: ApiSettings) -> None:
    """Raise SettingsError if `api.prefix` can't be a prefix."""
    if not _PREFIX.fullmatch(settings.prefix):
        raise SettingsError([f"api.prefix: expected a path like '/api/v1/', got {settings.prefix!r}"])


def resources_of(
    settings: ApiSettings,
    reader: Reader,
    metrics: ApiMetrics,
    build: BuildFacts,
    clock: Callable[[], datetime],
) -> Sequence[Resource]:
    """Return everything that answers, in the order of `docs/rest.md`, but for the document that is made of it."""
    return (
        Main(),
        ServiceInfo(build, SCHEMA_VERSION),
        Metrics(metrics.shown),
        Organizations(reader),
        ClustersOfOrganization(reader, settings.org_overview_limit_hours, clock),
        ClusterReport(reader),
        ClusterReportInfo(reader),
        RuleOfReport(reader),
        ReportsOfPath(reader),
        ReportsOfBody(reader),
        RecommendationsByRule(reader),
        ClustersDetail(reader),
        RecommendationsByCluster(reader),
        DisabledRules(reader),
        DisabledClusters(reader),
        DisabledRulesOfClusters(reader),
        ReasonsOfUser(reader),
        Acknowledgements(reader),
        AcknowledgementOfRule(reader),
        RatingOfRule(reader),
        VoteOfUser(reader),
    )
