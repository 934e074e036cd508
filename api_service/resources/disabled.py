"""Rules that were switched off for clusters, and why (`docs/rest.md`, sections 4.10 to 4.13)."""

from datetime import datetime

import msgspec

from api_service import queries, times
from api_service.bodies import CLUSTER_ARRAY
from api_service.database import Reader
from api_service.endpoints import Access, Endpoint, Tag
from api_service.fields import ClusterID, ClusterName, Component, ErrorKey, Exact, FreeText
from api_service.parameters import ERROR_KEY, ORG_ID, RULE_ID, USER_ID, Rule
from api_service.times import NO_TIME, TimeObject, time_object


class DisabledRule(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A rule that is switched off for a cluster; `Disabled` is 1, and `EnabledAt` has no time."""

    cluster_id: ClusterID = msgspec.field(name="ClusterID")
    rule_id: Component = msgspec.field(name="RuleID")
    error_key: ErrorKey
    disabled: int
    disabled_at: TimeObject
    enabled_at: TimeObject = NO_TIME
    updated_at: TimeObject


class DisabledRulesAnswer(msgspec.Struct, frozen=True):
    """Rules that are switched off for clusters, in the order of cluster, rule and error key."""

    rules: list[DisabledRule]
    status: str = "ok"


class DisabledRules:
    """Rules that are switched off for clusters of an organization."""

    endpoint = Endpoint(
        "disabled",
        "GET",
        "rules/organizations/{org_id}/disabled",
        "Rules that are switched off for clusters of an organization",
        Tag.TOGGLES,
        Access.ORGANIZATION_OF_PATH,
        DisabledRulesAnswer,
        parameters=(ORG_ID,),
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, org_id: int) -> DisabledRulesAnswer:
        """List them in the order of cluster, rule and error key."""
        return _disabled_rules(queries.disabled_rules(self._reader, org_id))


class DisabledRulesOfClusters:
    """Rules that are switched off for the listed clusters."""

    endpoint = Endpoint(
        "disabled_for_clusters",
        "POST",
        "rules/organizations/{org_id}/disabled_for_clusters",
        "Rules that are switched off for the clusters in the body",
        Tag.TOGGLES,
        Access.ORGANIZATION_OF_PATH,
        DisabledRulesAnswer,
        parameters=(ORG_ID,),
        body=CLUSTER_ARRAY,
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, org_id: int, clusters: list[str]) -> DisabledRulesAnswer:
        """List them in the order of cluster, rule and error key."""
        return _disabled_rules(queries.disabled_rules_of_clusters(self._reader, org_id, clusters))


def _disabled_rules(toggles: list[queries.Toggle]) -> DisabledRulesAnswer:
    ordered = sorted(toggles, key=lambda toggle: (toggle.cluster, toggle.rule_id, toggle.error_key))
    return DisabledRulesAnswer(
        [
            DisabledRule(
                cluster_id=toggle.cluster,
                rule_id=toggle.rule_id,
                error_key=toggle.error_key,
                disabled=toggle.disabled,
                disabled_at=time_object(toggle.disabled_at),
                updated_at=time_object(toggle.updated_at),
            )
            for toggle in ordered
        ]
    )


class DisabledCluster(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster for which the rule is switched off, since when, and the newest reason that any user gave."""

    cluster_id: ClusterID
    cluster_name: ClusterName = ""
    disabled_at: Exact
    justification: FreeText


class DisabledClustersAnswer(msgspec.Struct, frozen=True):
    """Clusters for which the rule is switched off, the one that was switched off last first."""

    clusters: list[DisabledCluster]
    status: str = "ok"


class DisabledClusters:
    """Clusters for which one rule is switched off."""

    endpoint = Endpoint(
        "disabled_clusters",
        "GET",
        "clusters/rules/{rule_id}/error_key/{error_key}/organizations/{org_id}/disabled",
        "Clusters of an organization for which a rule is switched off",
        Tag.TOGGLES,
        Access.ORGANIZATION_OF_PATH,
        DisabledClustersAnswer,
        parameters=(ORG_ID, RULE_ID, ERROR_KEY),
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, org_id: int, rule_id: str, error_key: str) -> DisabledClustersAnswer:
        """List clusters, the one switched off last first."""
        found = queries.disabled_clusters(self._reader, org_id, Rule(rule_id, error_key))
        by_cluster = sorted(found, key=lambda cluster: cluster.cluster)
        return DisabledClustersAnswer(
            [
                DisabledCluster(
                    cluster_id=cluster.cluster,
                    disabled_at=times.exact(cluster.disabled_at),
                    justification=cluster.justification or "",
                )
                for cluster in sorted(by_cluster, key=_disabled_at, reverse=True)
            ]
        )


def _disabled_at(cluster: queries.DisabledCluster) -> datetime:
    # without a time it comes last
    return datetime.min if cluster.disabled_at is None else times.read(cluster.disabled_at)


class Reason(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Why the user switched off a rule for a cluster."""

    cluster_id: ClusterID = msgspec.field(name="ClusterID")
    rule_id: Component = msgspec.field(name="RuleID")
    error_key: ErrorKey
    message: FreeText
    added_at: TimeObject
    updated_at: TimeObject


class ReasonsAnswer(msgspec.Struct, frozen=True):
    """The reasons that the user gave, in the order of cluster, rule and error key."""

    reasons: list[Reason]
    status: str = "ok"


class ReasonsOfUser:
    """The reasons that a user gave for switching off rules."""

    endpoint = Endpoint(
        "disabled_feedback",
        "GET",
        "rules/users/{user_id}/disabled/feedback",
        "The reasons that a user gave for switching off rules; with an identity, in its organization alone",
        Tag.TOGGLES,
        Access.OWN_ORGANIZATION,
        ReasonsAnswer,
        parameters=(USER_ID,),
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, user_id: str, own_org_id: int | None) -> ReasonsAnswer:
        """List them in the order of cluster, rule and error key."""
        found = queries.reasons_of_user(self._reader, user_id, own_org_id)
        return ReasonsAnswer(
            [
                Reason(
                    cluster_id=reason.cluster,
                    rule_id=reason.rule_id,
                    error_key=reason.error_key,
                    message=reason.message,
                    added_at=time_object(reason.added_at),
                    updated_at=time_object(reason.updated_at),
                )
                for reason in sorted(found, key=lambda reason: (reason.cluster, reason.rule_id, reason.error_key))
            ]
        )
