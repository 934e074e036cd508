"""What is known about one rule in an organization (`docs/rest.md`, sections 4.8 and 4.15)."""

import msgspec

from api_service import queries, times
from api_service.bodies import CLUSTER_FILTER
from api_service.database import Reader
from api_service.endpoints import Access, Endpoint, Tag
from api_service.errors import item_not_found
from api_service.fields import ClusterID, ClusterName, Exact, Opinion, RuleSelector
from api_service.paging import Page, PagedAnswer
from api_service.parameters import AFTER, LIMIT, ORG_ID, RULE_SELECTOR, USER_ID, GivenCluster
from api_service.resources.recommendations import ClusterMeta


class HitCluster(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster that the rule hits: when that was stored (`last_checked_at`), and since when it is so (`impacted`)."""

    cluster: ClusterID
    cluster_name: ClusterName = ""
    last_checked_at: Exact
    impacted: Exact
    meta: ClusterMeta


class ClustersDetailAnswer(msgspec.Struct, frozen=True):
    """Clusters that the rule hits, in ascending order."""

    clusters: list[HitCluster]
    status: str = "ok"


class ClustersDetail:
    """Which clusters a rule hits."""

    endpoint = Endpoint(
        "clusters_detail",
        "GET",
        "rules/{rule_selector}/organizations/{org_id}/users/{user_id}/clusters_detail",
        "Clusters of an organization that a rule hits; the body can limit which",
        Tag.RECOMMENDATIONS,
        Access.ORGANIZATION_OF_PATH,
        ClustersDetailAnswer,
        parameters=(ORG_ID, RULE_SELECTOR, USER_ID),
        query=(LIMIT, AFTER),
        body=CLUSTER_FILTER,
        misses=True,
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(
        self,
        org_id: int,
        rule_selector: str,
        user_id: str,
        clusters: list[str],
        *,
        limit: int | None = None,
        after: GivenCluster | None = None,
    ) -> PagedAnswer:
        """List clusters in ascending order."""
        page = Page(limit, after)
        found = queries.clusters_detail(self._reader, org_id, rule_selector, clusters, page)
        # behind the last cluster is the end of a list, not a rule without one
        if not found and after is None:
            raise item_not_found(rule_selector)
        hits, next_query = page.cut(sorted(found, key=_cluster), _cluster)
        return PagedAnswer(ClustersDetailAnswer([_hit_cluster(hit) for hit in hits]), next_query)


def _cluster(found: queries.HitCluster) -> str:
    return found.cluster


def _hit_cluster(found: queries.HitCluster) -> HitCluster:
    return HitCluster(
        cluster=found.cluster,
        last_checked_at=times.exact(found.created_at),
        impacted=times.exact(found.impacted_since),
        meta=ClusterMeta(found.version or ""),
    )


class Rating(msgspec.Struct, frozen=True):
    """How an organization rates a rule."""

    rule: RuleSelector
    rating: Opinion


class RatingAnswer(msgspec.Struct, frozen=True):
    """The rating of the rule."""

    rating: Rating
    status: str = "ok"


class RatingOfRule:
    """How an organization rates a rule."""

    endpoint = Endpoint(
        "rating",
        "GET",
        "rules/{rule_selector}/organizations/{org_id}/rating",
        "How an organization rates a rule",
        Tag.OPINIONS,
        Access.ORGANIZATION_OF_PATH,
        RatingAnswer,
        parameters=(ORG_ID, RULE_SELECTOR),
        misses=True,
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, org_id: int, rule_selector: str) -> RatingAnswer:
        """Show the rating."""
        found = queries.rating(self._reader, org_id, rule_selector)
        if found is None:
            raise item_not_found(org_id, rule_selector, "rating")
        return RatingAnswer(Rating(found.rule_selector, found.rating or 0))
