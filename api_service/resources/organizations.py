"""Organizations and their clusters (`docs/rest.md`, sections 4.1 and 4.2)."""

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from api_service import queries
from api_service.database import Reader
from api_service.endpoints import Access, Endpoint, Tag
from api_service.fields import ClusterID, OrganizationID
from api_service.paging import Page, PagedAnswer
from api_service.parameters import AFTER, LIMIT, ORGANIZATION, GivenCluster


class OrganizationsAnswer(msgspec.Struct, frozen=True):
    """Organizations that have a report, in ascending order."""

    organizations: list[OrganizationID]
    status: str = "ok"


class Organizations:
    """Which organizations have a report."""

    endpoint = Endpoint(
        "organizations",
        "GET",
        "organizations",
        "Organizations with a report; with an identity, its own alone",
        Tag.ORGANIZATIONS,
        Access.OWN_ORGANIZATION,
        OrganizationsAnswer,
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, own_org_id: int | None) -> OrganizationsAnswer:
        """List organizations in ascending order."""
        if own_org_id is None:
            return OrganizationsAnswer(sorted(queries.organizations(self._reader)))
        return OrganizationsAnswer([own_org_id] if queries.has_report(self._reader, own_org_id) else [])


class ClustersAnswer(msgspec.Struct, frozen=True):
    """Clusters whose report was stored lately, in ascending order."""

    clusters: list[ClusterID]
    status: str = "ok"


class ClustersOfOrganization:
    """Which clusters of an organization have reported lately.

    `limit_hours` is the age up to which a report counts, by the time of its storing; `clock` returns naive UTC.
    """

    endpoint = Endpoint(
        "clusters",
        "GET",
        "organizations/{organization}/clusters",
        "Clusters of an organization whose report was stored lately",
        Tag.ORGANIZATIONS,
        Access.ORGANIZATION_OF_PATH,
        ClustersAnswer,
        parameters=(ORGANIZATION,),
        query=(LIMIT, AFTER),
    )

    def __init__(self, reader: Reader, limit_hours: int, clock: Callable[[], datetime]) -> None:
        self._reader = reader
        self._limit_hours = limit_hours
        self._clock = clock

    def respond(self, org_id: int, *, limit: int | None = None, after: GivenCluster | None = None) -> PagedAnswer:
        """List clusters in ascending order."""
        page = Page(limit, after)
        since = _hours_before(self._clock(), self._limit_hours)
        found = sorted(queries.clusters(self._reader, org_id, since, page))
        clusters, next_query = page.cut(found, str)
        return PagedAnswer(ClustersAnswer(clusters), next_query)


def _hours_before(time: datetime, hours: int) -> datetime:
    try:
        return time - timedelta(hours=hours)
    except OverflowError:
        return datetime.min
