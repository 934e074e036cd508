"""The questions that the API asks, one SQL statement each (`docs/rest.md`, section 4; `docs/schema.md`).

Where users' choices live `org_id` is text, so it is cast there, never the column. Rows come in no order: what is
shown is sorted by the resources, so that no collation of the database plays a part. A page of a list is read in that
same order, by the bytes of the cluster ids.
"""

from datetime import datetime
from typing import NamedTuple

from api_service.database import Reader, Statement, Value
from api_service.paging import Page
from api_service.parameters import Rule
from api_service.times import StoredTime

TYPES = {
    "org_id": "bigint",
    "cluster": "text",
    "clusters": "text[]",
    "since": "timestamp",
    "user_id": "text",
    "component": "text",
    "error_key": "text",
    "rule_selector": "text",
    "after": "text",
    "after_canonical": "text",
    "rows": "bigint",
}
"""The type of each parameter on PostgreSQL. A column can be narrower (`integer`) before `bigint` is applied."""

# Each step is the smallest organization above the last: one probe of the index an organization, not a row.
ORGANIZATIONS = Statement(
    "organizations",
    """
    WITH RECURSIVE organization (org_id) AS (
        SELECT MIN(org_id) FROM report
        UNION ALL
        SELECT (SELECT MIN(report.org_id) FROM report WHERE report.org_id > organization.org_id)
        FROM organization
        WHERE organization.org_id IS NOT NULL
    )
    SELECT org_id FROM organization WHERE org_id IS NOT NULL
    """,
    TYPES,
)


def organizations(reader: Reader) -> list[int]:
    """Return each organization that has a report."""
    return [org_id for (org_id,) in reader.read(ORGANIZATIONS)]


# Without an order PostgreSQL may read the table until it meets a row of an organization that has many.
ORGANIZATION_WITH_REPORT = Statement(
    "organization_with_report",
    "SELECT org_id FROM report WHERE org_id = :org_id ORDER BY cluster LIMIT 1",
    TYPES,
)


def has_report(reader: Reader, org_id: int) -> bool:
    """Return whether an organization has a report."""
    return bool(reader.read(ORGANIZATION_WITH_REPORT, org_id=org_id))


CLUSTERS = Statement(
    "clusters",
    "SELECT cluster FROM report WHERE org_id = :org_id AND reported_at >= :since",
    TYPES,
)


# An adopted database can hold ids that are not canonical: one that is stored as it was written is meant as it is.
CLUSTERS_PAGE = Statement(
    "clusters_page",
    f"""
    {CLUSTERS.sql} AND cluster COLLATE "C" > COALESCE(
        (SELECT last.cluster FROM report AS last WHERE last.org_id = :org_id AND last.cluster = :after),
        :after_canonical
    )
    ORDER BY cluster COLLATE "C"
    LIMIT :rows
    """,  # noqa: S608 - parts of this file
    TYPES,
)


def clusters(reader: Reader, org_id: int, since: datetime, page: Page) -> list[str]:
    """Return the clusters of an organization whose report was stored at `since` (naive UTC) or later.

    Of a page they are the first `page.rows` behind `page.after`.
    """
    if page.is_whole_list:
        rows = reader.read(CLUSTERS, org_id=org_id, since=since)
    else:
        rows = reader.read(CLUSTERS_PAGE, org_id=org_id, since=since, **_bounds(page))
    return [cluster for (cluster,) in rows]


def _bounds(page: Page) -> dict[str, Value]:
    after, canonical = (page.after.written, page.after.canonical) if page.after else ("", "")
    return {"after": after, "after_canonical": canonical, "rows": page.rows}


class Hit(NamedTuple):
    """A hit of a report, with what users have said about it; `disabled_at` is the toggle's."""

    component: str
    error_key: str
    template_data: str
    created_at: StoredTime
    user_vote: int | None
    disabled: int | None
    disabled_at: StoredTime
    feedback: str | None
    feedback_updated_at: StoredTime


_HIT = """
    rule_hit.rule_fqdn, rule_hit.error_key, rule_hit.template_data, rule_hit.created_at,
    vote.user_vote, toggle.disabled, toggle.disabled_at, feedback.message, feedback.updated_at
"""

# COALESCE keeps the index of an organization's toggles out of it: by its primary key a toggle is one row.
_CHOICES_OF_USERS = """
    LEFT JOIN cluster_rule_user_feedback AS vote
        ON vote.cluster_id = rule_hit.cluster_id AND vote.rule_id = rule_hit.rule_fqdn
        AND vote.user_id = :user_id AND vote.error_key = rule_hit.error_key
    LEFT JOIN cluster_rule_toggle AS toggle
        ON toggle.cluster_id = rule_hit.cluster_id AND toggle.rule_id = rule_hit.rule_fqdn
        AND toggle.error_key = rule_hit.error_key AND COALESCE(toggle.org_id, '') = CAST(:org_id AS varchar)
    LEFT JOIN cluster_user_rule_disable_feedback AS feedback
        ON feedback.cluster_id = rule_hit.cluster_id AND feedback.user_id = :user_id
        AND feedback.rule_id = rule_hit.rule_fqdn AND feedback.error_key = rule_hit.error_key
"""

REPORT = Statement(
    "report",
    f"""
    SELECT report.last_checked_at, report.gathered_at, {_HIT}
    FROM report
    LEFT JOIN rule_hit ON rule_hit.cluster_id = report.cluster AND rule_hit.org_id = report.org_id
    {_CHOICES_OF_USERS}
    WHERE report.org_id = :org_id AND report.cluster = :cluster
    """,  # noqa: S608 - parts of this file
    TYPES,
)


class Report(NamedTuple):
    """The report of a cluster."""

    last_checked_at: StoredTime
    gathered_at: StoredTime
    hits: list[Hit]


def report(reader: Reader, org_id: int, cluster: str, user_id: str) -> Report | None:
    """Return the report of a cluster as a user sees it, None if the organization has no such cluster."""
    rows = reader.read(REPORT, org_id=org_id, cluster=cluster, user_id=user_id)
    if not rows:
        return None
    last_checked_at, gathered_at, *_ = rows[0]
    hits = [Hit(*hit) for _, _, *hit in rows if hit[0] is not None]
    return Report(last_checked_at, gathered_at, hits)


REPORT_INFO = Statement(
    "report_info",
    """
    SELECT report.last_checked_at, report.reported_at, (
        SELECT COUNT(*) FROM rule_hit
        WHERE rule_hit.cluster_id = report.cluster AND rule_hit.org_id = report.org_id
    )
    FROM report
    WHERE report.org_id = :org_id AND report.cluster = :cluster
    """,
    TYPES,
)


class ReportInfo(NamedTuple):
    """When a report was made and stored, and how many hits it has."""

    last_checked_at: StoredTime
    reported_at: StoredTime
    hits: int


def report_info(reader: Reader, org_id: int, cluster: str) -> ReportInfo | None:
    """Return what is known about a report, None if the organization has no such cluster."""
    rows = reader.read(REPORT_INFO, org_id=org_id, cluster=cluster)
    return ReportInfo(*rows[0]) if rows else None


RULE_OF_REPORT = Statement(
    "rule_of_report",
    f"""
    SELECT {_HIT}
    FROM rule_hit
    {_CHOICES_OF_USERS}
    WHERE rule_hit.org_id = :org_id AND rule_hit.cluster_id = :cluster
        AND rule_hit.rule_fqdn = :component AND rule_hit.error_key = :error_key
    """,  # noqa: S608 - parts of this file
    TYPES,
)


def rule_of_report(reader: Reader, org_id: int, cluster: str, user_id: str, rule: Rule) -> Hit | None:
    """Return one hit of a report as a user sees it, None if the cluster is not hit by the rule."""
    rows = reader.read(
        RULE_OF_REPORT,
        org_id=org_id,
        cluster=cluster,
        user_id=user_id,
        component=rule.component,
        error_key=rule.error_key,
    )
    return Hit(*rows[0]) if rows else None


# The text of another organization's report is not read, only that there is one.
REPORTS = Statement(
    "reports",
    """
    SELECT org_id, cluster, CASE WHEN org_id = :org_id THEN report END
    FROM report
    WHERE cluster = ANY(:clusters)
    """,
    TYPES,
)


class StoredReport(NamedTuple):
    """The organization that a cluster belongs to, and its report as stored, None if that is another one."""

    org_id: int
    cluster: str
    report: str | None


def reports(reader: Reader, org_id: int, clusters: list[str]) -> list[StoredReport]:
    """Return the reports of those clusters that have one, whatever their organization."""
    return [StoredReport(*row) for row in reader.read(REPORTS, org_id=org_id, clusters=clusters)]


RECOMMENDATIONS = Statement(
    "recommendations",
    "SELECT rule_id, cluster_id FROM recommendation WHERE org_id = :org_id AND cluster_id = ANY(:clusters)",
    TYPES,
)


class Recommendation(NamedTuple):
    """A cluster that is hit by a rule, which is named by its selector."""

    rule_selector: str
    cluster: str


def recommendations(reader: Reader, org_id: int, clusters: list[str]) -> list[Recommendation]:
    """Return which rules hit which of the clusters of an organization."""
    return [Recommendation(*row) for row in reader.read(RECOMMENDATIONS, org_id=org_id, clusters=clusters)]


# A version is found by its primary key; of a join PostgreSQL may make one with all of report_info.
CLUSTERS_DETAIL = Statement(
    "clusters_detail",
    """
    SELECT recommendation.cluster_id, recommendation.created_at, recommendation.impacted_since, (
        SELECT version_info FROM report_info
        WHERE report_info.org_id = recommendation.org_id AND report_info.cluster_id = recommendation.cluster_id
    )
    FROM recommendation
    WHERE recommendation.org_id = :org_id AND recommendation.rule_id = :rule_selector
    """,
    TYPES,
)

_AMONG_CLUSTERS = "AND recommendation.cluster_id = ANY(:clusters)"

CLUSTERS_DETAIL_FILTERED = Statement("clusters_detail_filtered", f"{CLUSTERS_DETAIL.sql} {_AMONG_CLUSTERS}", TYPES)

# `|| ''` keeps both engines from walking through all of the organization in the order of its primary key.
_CLUSTERS_DETAIL_PAGE = """
    SELECT page.cluster_id, page.created_at, page.impacted_since, (
        SELECT version_info FROM report_info
        WHERE report_info.org_id = page.org_id AND report_info.cluster_id = page.cluster_id
    )
    FROM (
        SELECT recommendation.org_id, recommendation.cluster_id, recommendation.created_at,
            recommendation.impacted_since
        FROM recommendation
        WHERE recommendation.org_id = :org_id AND recommendation.rule_id = :rule_selector {filter}
            AND recommendation.cluster_id || '' COLLATE "C" > COALESCE(
                (
                    SELECT last.cluster_id FROM recommendation AS last
                    WHERE last.org_id = :org_id AND last.cluster_id = :after
                    LIMIT 1
                ),
                :after_canonical
            )
        ORDER BY recommendation.cluster_id || '' COLLATE "C"
        LIMIT :rows
    ) AS page
"""

CLUSTERS_DETAIL_PAGE = Statement("clusters_detail_page", _CLUSTERS_DETAIL_PAGE.format(filter=""), TYPES)

CLUSTERS_DETAIL_FILTERED_PAGE = Statement(
    "clusters_detail_filtered_page", _CLUSTERS_DETAIL_PAGE.format(filter=_AMONG_CLUSTERS), TYPES
)


class HitCluster(NamedTuple):
    """A cluster that is hit by a rule: when this was stored, since when it is so, and the cluster's version."""

    cluster: str
    created_at: StoredTime
    impacted_since: StoredTime
    version: str | None


def clusters_detail(
    reader: Reader, org_id: int, rule_selector: str, clusters: list[str], page: Page
) -> list[HitCluster]:
    """Return the clusters of an organization that are hit by a rule; `clusters` filters them, unless empty.

    Of a page they are the first `page.rows` behind `page.after`.
    """
    values: dict[str, Value] = {"org_id": org_id, "rule_selector": rule_selector}
    if clusters:
        values["clusters"] = clusters
    if page.is_whole_list:
        statement = CLUSTERS_DETAIL_FILTERED if clusters else CLUSTERS_DETAIL
    else:
        statement = CLUSTERS_DETAIL_FILTERED_PAGE if clusters else CLUSTERS_DETAIL_PAGE
        values |= _bounds(page)
    return [HitCluster(*row) for row in reader.read(statement, **values)]


CLUSTERS_RECOMMENDATIONS = Statement(
    "clusters_recommendations",
    """
    SELECT report.cluster, report.last_checked_at, report_info.version_info, recommendation.rule_id
    FROM report
    LEFT JOIN report_info ON report_info.org_id = report.org_id AND report_info.cluster_id = report.cluster
    LEFT JOIN recommendation ON recommendation.org_id = report.org_id AND recommendation.cluster_id = report.cluster
    WHERE report.org_id = :org_id AND report.cluster = ANY(:clusters)
    """,
    TYPES,
)


class ClusterRecommendation(NamedTuple):
    """A cluster and one rule that hits it, None if there is none."""

    cluster: str
    last_checked_at: StoredTime
    version: str | None
    rule_selector: str | None


def clusters_recommendations(reader: Reader, org_id: int, clusters: list[str]) -> list[ClusterRecommendation]:
    """Return those of the clusters that an organization has, once for each rule that hits them, at least once."""
    rows = reader.read(CLUSTERS_RECOMMENDATIONS, org_id=org_id, clusters=clusters)
    return [ClusterRecommendation(*row) for row in rows]


_TOGGLE = "cluster_id, rule_id, error_key, disabled, disabled_at, updated_at"

DISABLED_RULES = Statement(
    "disabled_rules",
    f"""
    SELECT {_TOGGLE}
    FROM cluster_rule_toggle
    WHERE org_id = CAST(:org_id AS varchar) AND disabled = 1
    """,  # noqa: S608 - parts of this file
    TYPES,
)

# COALESCE keeps the index of an organization's toggles out of it: the primary key begins with the cluster.
DISABLED_RULES_OF_CLUSTERS = Statement(
    "disabled_rules_of_clusters",
    f"""
    SELECT {_TOGGLE}
    FROM cluster_rule_toggle
    WHERE COALESCE(org_id, '') = CAST(:org_id AS varchar) AND disabled = 1 AND cluster_id = ANY(:clusters)
    """,  # noqa: S608 - parts of this file
    TYPES,
)


class Toggle(NamedTuple):
    """A rule switched off for a cluster."""

    cluster: str
    rule_id: str
    error_key: str
    disabled: int
    disabled_at: StoredTime
    updated_at: StoredTime


def disabled_rules(reader: Reader, org_id: int) -> list[Toggle]:
    """Return the rules that are switched off for clusters of an organization."""
    return [Toggle(*row) for row in reader.read(DISABLED_RULES, org_id=org_id)]


def disabled_rules_of_clusters(reader: Reader, org_id: int, clusters: list[str]) -> list[Toggle]:
    """Return the rules that are switched off for those of the clusters that belong to an organization."""
    rows = reader.read(DISABLED_RULES_OF_CLUSTERS, org_id=org_id, clusters=clusters)
    return [Toggle(*row) for row in rows]


DISABLED_CLUSTERS = Statement(
    "disabled_clusters",
    """
    SELECT toggle.cluster_id, toggle.disabled_at, (
        SELECT feedback.message FROM cluster_user_rule_disable_feedback AS feedback
        WHERE feedback.cluster_id = toggle.cluster_id AND feedback.rule_id = toggle.rule_id
            AND feedback.error_key = toggle.error_key AND feedback.org_id = toggle.org_id
        ORDER BY feedback.updated_at DESC, feedback.user_id
        LIMIT 1
    )
    FROM cluster_rule_toggle AS toggle
    WHERE toggle.org_id = CAST(:org_id AS varchar) AND toggle.rule_id = :component
        AND toggle.error_key = :error_key AND toggle.disabled = 1
    """,
    TYPES,
)


class DisabledCluster(NamedTuple):
    """A cluster for which a rule is switched off, and the newest reason that any user gave."""

    cluster: str
    disabled_at: StoredTime
    justification: str | None


def disabled_clusters(reader: Reader, org_id: int, rule: Rule) -> list[DisabledCluster]:
    """Return the clusters of an organization for which a rule is switched off."""
    rows = reader.read(DISABLED_CLUSTERS, org_id=org_id, component=rule.component, error_key=rule.error_key)
    return [DisabledCluster(*row) for row in rows]


REASONS_OF_USER = Statement(
    "reasons_of_user",
    """
    SELECT cluster_id, rule_id, error_key, message, added_at, updated_at
    FROM cluster_user_rule_disable_feedback
    WHERE user_id = :user_id
    """,
    TYPES,
)

REASONS_OF_USER_IN_ORGANIZATION = Statement(
    "reasons_of_user_in_organization",
    f"{REASONS_OF_USER.sql} AND org_id = CAST(:org_id AS varchar)",
    TYPES,
)


class Reason(NamedTuple):
    """Why a user switched off a rule for a cluster."""

    cluster: str
    rule_id: str
    error_key: str
    message: str
    added_at: StoredTime
    updated_at: StoredTime


def reasons_of_user(reader: Reader, user_id: str, org_id: int | None) -> list[Reason]:
    """Return the reasons that a user gave, in one organization or, with None, in any."""
    if org_id is None:
        rows = reader.read(REASONS_OF_USER, user_id=user_id)
    else:
        rows = reader.read(REASONS_OF_USER_IN_ORGANIZATION, user_id=user_id, org_id=org_id)
    return [Reason(*row) for row in rows]


ACKNOWLEDGEMENTS = Statement(
    "acknowledgements",
    """
    SELECT rule_id, error_key, justification, created_at, updated_at
    FROM rule_disable
    WHERE org_id = CAST(:org_id AS varchar)
    """,
    TYPES,
)

ACKNOWLEDGEMENT = Statement(
    "acknowledgement",
    f"{ACKNOWLEDGEMENTS.sql} AND rule_id = :component AND error_key = :error_key",
    TYPES,
)


class Acknowledgement(NamedTuple):
    """A rule that is switched off for a whole organization."""

    rule_id: str
    error_key: str
    justification: str | None
    created_at: StoredTime
    updated_at: StoredTime


def acknowledgements(reader: Reader, org_id: int) -> list[Acknowledgement]:
    """Return the rules that are switched off for an organization."""
    return [Acknowledgement(*row) for row in reader.read(ACKNOWLEDGEMENTS, org_id=org_id)]


def acknowledgement(reader: Reader, org_id: int, rule: Rule) -> Acknowledgement | None:
    """Return how a rule is switched off for an organization, None if it is not."""
    rows = reader.read(ACKNOWLEDGEMENT, org_id=org_id, component=rule.component, error_key=rule.error_key)
    return Acknowledgement(*rows[0]) if rows else None


RATING = Statement(
    "rating",
    """
    SELECT rule_id, rating
    FROM advisor_ratings
    WHERE org_id = CAST(:org_id AS varchar) AND rule_id = :rule_selector
    """,
    TYPES,
)


class Rating(NamedTuple):
    """How an organization rates a rule."""

    rule_selector: str
    rating: int | None


def rating(reader: Reader, org_id: int, rule_selector: str) -> Rating | None:
    """Return the rating of a rule, None if the organization has given none."""
    rows = reader.read(RATING, org_id=org_id, rule_selector=rule_selector)
    return Rating(*rows[0]) if rows else None


VOTE = Statement(
    "vote",
    """
    SELECT report.org_id, vote.user_vote
    FROM report
    LEFT JOIN cluster_rule_user_feedback AS vote
        ON vote.cluster_id = report.cluster AND vote.rule_id = :component
        AND vote.user_id = :user_id AND vote.error_key = :error_key
    WHERE report.cluster = :cluster
    """,
    TYPES,
)


class Vote(NamedTuple):
    """The organization that a cluster belongs to, and what a user voted, None if nothing."""

    org_id: int
    user_vote: int | None


def vote(reader: Reader, cluster: str, rule: Rule, user_id: str) -> Vote | None:
    """Return the vote of a user on a rule for a cluster, None if there is no such cluster."""
    rows = reader.read(VOTE, cluster=cluster, component=rule.component, error_key=rule.error_key, user_id=user_id)
    return Vote(*rows[0]) if rows else None
