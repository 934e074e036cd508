"""The reports of several clusters (`docs/rest.md`, sections 4.5 and 4.6)."""

import msgspec
from msgspec import Raw

from api_service import queries
from api_service.bodies import CLUSTER_OBJECT
from api_service.database import Reader
from api_service.endpoints import Access, Endpoint, Tag
from api_service.errors import bad_request
from api_service.fields import ClusterID, StoredJSON
from api_service.json_values import is_valid
from api_service.parameters import CLUSTER_LIST, ORG_ID


class ReportsAnswer(msgspec.Struct, frozen=True):
    """Reports by cluster; `clusters` are those with a report and `errors` all others, in the order of the request.

    `generated_at` is always empty.
    """

    clusters: list[ClusterID]
    errors: list[ClusterID]
    reports: dict[ClusterID, StoredJSON]
    generated_at: str = ""
    status: str = "ok"


class ReportsOfPath:
    """The reports of the clusters that the path lists."""

    endpoint = Endpoint(
        "reports",
        "GET",
        "organizations/{org_id}/clusters/{cluster_list}/reports",
        "The reports of the clusters in the path",
        Tag.REPORTS,
        Access.ORGANIZATION_OF_PATH,
        ReportsAnswer,
        parameters=(ORG_ID, CLUSTER_LIST),
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, org_id: int, clusters: list[str]) -> ReportsAnswer:
        """Show each report once, and which clusters have none, in the order of the list."""
        return _reports(self._reader, org_id, clusters)


class ReportsOfBody:
    """The reports of the clusters that the body lists."""

    endpoint = Endpoint(
        "reports_post",
        "POST",
        "organizations/{org_id}/clusters/reports",
        "The reports of the clusters in the body",
        Tag.REPORTS,
        Access.ORGANIZATION_OF_PATH,
        ReportsAnswer,
        parameters=(ORG_ID,),
        body=CLUSTER_OBJECT,
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, org_id: int, clusters: list[str]) -> ReportsAnswer:
        """Show each report once, and which clusters have none, in the order of the list."""
        return _reports(self._reader, org_id, clusters)


def _reports(reader: Reader, org_id: int, clusters: list[str]) -> ReportsAnswer:
    found = queries.reports(reader, org_id, list(dict.fromkeys(clusters)))
    if any(stored.org_id != org_id for stored in found):
        raise bad_request("Improper organization ID")
    reports = {
        stored.cluster: Raw(stored.report.encode()) for stored in found if stored.report and is_valid(stored.report)
    }
    return ReportsAnswer(
        [cluster for cluster in clusters if cluster in reports],
        [cluster for cluster in clusters if cluster not in reports],
        reports,
    )
