"""Recommendations for listed clusters, by rule and by cluster (`docs/rest.md`, sections 4.7 and 4.9)."""

import msgspec

from api_service import queries, times
from api_service.bodies import CLUSTER_ARRAY
from api_service.database import Reader
from api_service.endpoints import Access, Endpoint, Tag
from api_service.fields import ClusterID, ClusterVersion, Exact, RuleSelector
from api_service.parameters import ORG_ID, USER_ID


class RecommendationsAnswer(msgspec.Struct, frozen=True):
    """The listed clusters that are hit, by the rule that hits them."""

    recommendations: dict[RuleSelector, list[ClusterID]]
    status: str = "ok"


class RecommendationsByRule:
    """Which rules hit which of the listed clusters."""

    endpoint = Endpoint(
        "recommendations",
        "POST",
        "recommendations/organizations/{org_id}/users/{user_id}/list",
        "Recommendations for the clusters in the body, by rule",
        Tag.RECOMMENDATIONS,
        Access.ORGANIZATION_OF_PATH,
        RecommendationsAnswer,
        parameters=(USER_ID, ORG_ID),
        body=CLUSTER_ARRAY,
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, org_id: int, user_id: str, clusters: list[str]) -> RecommendationsAnswer:
        """List the clusters of each rule that hits one of them."""
        by_rule: dict[str, list[str]] = {}
        for found in sorted(queries.recommendations(self._reader, org_id, clusters)):
            by_rule.setdefault(found.rule_selector, []).append(found.cluster)
        return RecommendationsAnswer(by_rule)


class ClusterMeta(msgspec.Struct, frozen=True):
    """About a cluster."""

    cluster_version: ClusterVersion


class ClusterRecommendations(msgspec.Struct, frozen=True):
    """A cluster and the rules that hit it; `created_at` is when it was last checked."""

    created_at: Exact
    meta: ClusterMeta
    recommendations: list[RuleSelector]


class ClustersRecommendationsAnswer(msgspec.Struct, frozen=True):
    """The listed clusters that the organization has, each with the rules that hit it."""

    clusters: dict[ClusterID, ClusterRecommendations]
    status: str = "ok"


class RecommendationsByCluster:
    """Which rules hit each of the listed clusters."""

    endpoint = Endpoint(
        "clusters_recommendations",
        "POST",
        "clusters/organizations/{org_id}/users/{user_id}/recommendations",
        "Recommendations for the clusters in the body, by cluster",
        Tag.RECOMMENDATIONS,
        Access.ORGANIZATION_OF_PATH,
        ClustersRecommendationsAnswer,
        parameters=(USER_ID, ORG_ID),
        body=CLUSTER_ARRAY,
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, org_id: int, user_id: str, clusters: list[str]) -> ClustersRecommendationsAnswer:
        """List the rules of each cluster that the organization has."""
        by_cluster: dict[str, ClusterRecommendations] = {}
        for found in sorted(queries.clusters_recommendations(self._reader, org_id, clusters), key=_order):
            entry = by_cluster.setdefault(found.cluster, _without_rules(found))
            if found.rule_selector is not None:
                entry.recommendations.append(found.rule_selector)
        return ClustersRecommendationsAnswer(by_cluster)


def _order(found: queries.ClusterRecommendation) -> tuple[str, str]:
    return found.cluster, found.rule_selector or ""


def _without_rules(found: queries.ClusterRecommendation) -> ClusterRecommendations:
    return ClusterRecommendations(times.exact(found.last_checked_at), ClusterMeta(found.version or ""), [])
