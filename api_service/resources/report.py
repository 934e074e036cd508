"""The report of one cluster, as one user sees it (`docs/rest.md`, sections 4.3 and 4.4)."""

import msgspec
from msgspec import UNSET, UnsetType

from api_service import queries, times
from api_service.database import Reader
from api_service.endpoints import Access, Endpoint, Tag
from api_service.errors import item_not_found
from api_service.fields import ClusterName, Component, ErrorKey, FreeText, HitCount, Opinion, Seconds, StoredJSON
from api_service.json_values import as_stored
from api_service.parameters import CLUSTER, ORG_ID, RULE_WITH_KEY, USER_ID, Rule

NO_HITS = -1


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that hits the cluster, and what the user said about it; `impacted` is since when, if that is known."""

    component: Component
    key: ErrorKey
    user_vote: Opinion
    disabled: bool
    disable_feedback: FreeText
    disabled_at: Seconds
    details: StoredJSON
    impacted: Seconds | UnsetType = UNSET


class ReportMeta(msgspec.Struct, frozen=True, kw_only=True):
    """About a report: when the cluster was checked, and when it collected the data, if that is known."""

    cluster_name: ClusterName = ""
    count: HitCount
    last_checked_at: Seconds
    gathered_at: Seconds | UnsetType = UNSET


class Report(msgspec.Struct, frozen=True):
    """The newest report of a cluster; its hits are in the order of component and error key.

    `disabled_at` of a hit is when the user wrote `disable_feedback`, whether or not the rule is switched off.
    """

    meta: ReportMeta
    reports: list[Hit]


class ReportAnswer(msgspec.Struct, frozen=True):
    """The report of a cluster."""

    report: Report
    status: str = "ok"


class ClusterReport:
    """The report of a cluster."""

    endpoint = Endpoint(
        "report",
        "GET",
        "organizations/{org_id}/clusters/{cluster}/users/{user_id}/report",
        "The report of a cluster, as a user sees it",
        Tag.REPORTS,
        Access.ORGANIZATION_OF_PATH,
        ReportAnswer,
        parameters=(CLUSTER, USER_ID, ORG_ID),
        misses=True,
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, org_id: int, cluster: str, user_id: str) -> ReportAnswer:
        """Show the report with its hits in the order of component and error key."""
        found = queries.report(self._reader, org_id, cluster, user_id)
        if found is None:
            raise item_not_found(org_id, cluster)
        hits = sorted(found.hits, key=lambda hit: (hit.component, hit.error_key))
        meta = ReportMeta(
            count=len(hits) or NO_HITS,
            last_checked_at=times.seconds(found.last_checked_at),
            gathered_at=times.seconds(found.gathered_at) or UNSET,
        )
        return ReportAnswer(Report(meta, [_hit_of_report(hit) for hit in hits]))


class ReportInfo(msgspec.Struct, frozen=True):
    """About a report: when the cluster was checked, and when the report was stored."""

    count: HitCount
    last_checked_at: Seconds
    stored_at: Seconds


class ReportInfoAnswer(msgspec.Struct, frozen=True):
    """What is known about the report of a cluster."""

    metainfo: ReportInfo
    status: str = "ok"


class ClusterReportInfo:
    """What is known about the report of a cluster, without it."""

    endpoint = Endpoint(
        "report_info",
        "GET",
        "organizations/{org_id}/clusters/{cluster}/users/{user_id}/report/info",
        "What is known about the report of a cluster",
        Tag.REPORTS,
        Access.ORGANIZATION_OF_PATH,
        ReportInfoAnswer,
        parameters=(CLUSTER, ORG_ID),
        misses=True,
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, org_id: int, cluster: str) -> ReportInfoAnswer:
        """Tell about the report."""
        found = queries.report_info(self._reader, org_id, cluster)
        if found is None:
            raise item_not_found(org_id, cluster)
        info = ReportInfo(found.hits or NO_HITS, times.seconds(found.last_checked_at), times.seconds(found.reported_at))
        return ReportInfoAnswer(info)


class RuleAnswer(msgspec.Struct, frozen=True):
    """One hit of the report; `disabled_at` is when the rule was switched off, and there is no `impacted`."""

    report: Hit
    status: str = "ok"


class RuleOfReport:
    """One hit of a report."""

    endpoint = Endpoint(
        "rule",
        "GET",
        "organizations/{org_id}/clusters/{cluster}/users/{user_id}/rules/{rule_id}",
        "One rule of the report of a cluster, as a user sees it",
        Tag.REPORTS,
        Access.ORGANIZATION_OF_PATH,
        RuleAnswer,
        parameters=(CLUSTER, USER_ID, ORG_ID, RULE_WITH_KEY),
        misses=True,
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, org_id: int, cluster: str, user_id: str, rule: Rule) -> RuleAnswer:
        """Show the hit; unlike in the report, `disabled_at` is the time of the toggle, and `impacted` is left out."""
        found = queries.rule_of_report(self._reader, org_id, cluster, user_id, rule)
        if found is None:
            raise item_not_found(org_id, cluster, rule.component, rule.error_key)
        return RuleAnswer(_hit(found, disabled_at=found.disabled_at, impacted=UNSET))


def _hit_of_report(found: queries.Hit) -> Hit:
    return _hit(found, disabled_at=found.feedback_updated_at, impacted=times.seconds(found.created_at) or UNSET)


def _hit(found: queries.Hit, disabled_at: times.StoredTime, impacted: str | UnsetType) -> Hit:
    return Hit(
        component=found.component,
        key=found.error_key,
        user_vote=found.user_vote or 0,
        disabled=found.disabled == 1,
        disable_feedback=found.feedback or "",
        disabled_at=times.seconds(disabled_at),
        details=as_stored(found.template_data),
        impacted=impacted,
    )
