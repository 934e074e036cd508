"""What has to be sent and asked so that consumer and API execute every statement that they have."""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote

from psycopg2.extensions import connection as Connection  # noqa: N812 - a class with a name in lower case

from benchmarks.crowd import BEGIN, Crowd
from benchmarks.services import Question
from examples.demo.generator import Cluster

_WITHOUT_TIME = "UPDATE recommendation SET impacted_since = NULL WHERE cluster_id = ANY(%s) AND org_id = ANY(%s)"
_USER = "1"


def messages_of_every_kind(crowd: Crowd, connection: Connection, new: Sequence[int], days: int) -> list[bytes]:
    """Return as many messages of each kind as there are new clusters, newer by `days` than what was stored first.

    `connection` is used to take from some stored rows what other components leave out.
    """
    clusters = iter(crowd.spread(6 * len(new), days))

    def some() -> list[int]:
        return [next(clusters) for _ in new]

    without_time = some()
    _take_times(connection, [crowd.cluster(number) for number in without_time])
    return [
        *(crowd.stored_message(number) for number in new),
        *(crowd.changed_message(number, days) for number in some()),
        *(crowd.same_message(number, days) for number in some()),
        *(crowd.changed_message(number, days) for number in without_time),
        *(_with_other_hits(crowd, number, days) for number in some()),
        *(_moved(crowd, number, days) for number in some()),
        *(b"{}" for _ in new),
    ]


def _take_times(connection: Connection, clusters: Sequence[Cluster]) -> None:
    """Leave recommendations without a time, as older programs stored them."""
    with connection.cursor() as cursor:
        ids = [cluster.cluster_id for cluster in clusters]
        cursor.execute(_WITHOUT_TIME, (ids, [cluster.org_id for cluster in clusters]))
    connection.commit()


def _with_other_hits(crowd: Crowd, number: int, days: int) -> bytes:
    """Return a message of which some hits are new, some have other details, and some are gone; so has the version."""
    stored = crowd.cluster(number)
    cluster = replace(stored, rules=crowd.cluster(number + 1).rules, version=f"{stored.version}-{days}")
    return crowd.fleet.message(cluster, BEGIN + timedelta(days=days))


def _moved(crowd: Crowd, number: int, days: int) -> bytes:
    """Return a message by which a cluster gets another organization."""
    before, after = crowd.organization_of(number), crowd.organizations + 1
    return crowd.changed_message(number, days).replace(b'"OrgID": %d,' % before, b'"OrgID": %d,' % after)


def questions(crowd: Crowd, number: int) -> Iterator[Question]:
    """Yield questions about a cluster, its organization and a rule that hits it, the same for every number."""
    cluster = crowd.cluster(number)
    organization, one = cluster.org_id, cluster.cluster_id
    others = range(number % crowd.organizations, crowd.size, crowd.organizations)
    several = [crowd.cluster(other).cluster_id for other in others]
    rule, error_key = next(rules[0] for other in others if (rules := crowd.cluster(other).rules))
    component = f"ccx_rules_ocp.external.rules.{rule}"
    selector = quote(f"{component}|{error_key}")
    clusters = f"organizations/{organization}/clusters"
    of_cluster = f"{clusters}/{one}/users/{_USER}"
    detail = f"rules/{selector}/organizations/{organization}/users/{_USER}/clusters_detail"
    for path in (
        "organizations",
        clusters,
        f"{clusters}?limit=10",
        f"{clusters}?limit=10&after={one}",
        f"{of_cluster}/report",
        f"{of_cluster}/report/info",
        f"{of_cluster}/rules/{component}.report%7C{error_key}",
        f"{clusters}/{','.join(several[:20])}/reports",
        detail,
        f"{detail}?limit=10",
        f"rules/organizations/{organization}/disabled",
        f"rules/organizations/{organization}/disabled_system_wide",
        f"rules/users/{organization % 1000}/disabled/feedback",
        f"clusters/rules/{component}/error_key/{error_key}/organizations/{organization}/disabled",
        f"rules/{component}.report/error_key/{error_key}/organizations/{organization}/",
        f"rules/{selector}/organizations/{organization}/rating",
        f"clusters/{one}/rules/{component}.report/error_key/{error_key}/users/{_USER}/get_vote",
    ):
        yield _question(organization, path)
    for ids in ([one], several):
        yield _question(organization, detail, "GET", {"clusters": ids})
        yield _question(organization, f"{detail}?limit=10", "GET", {"clusters": ids})
        yield _question(organization, f"{clusters}/reports", "POST", {"clusters": ids})
        yield _question(organization, f"recommendations/organizations/{organization}/users/{_USER}/list", "POST", ids)
        yield _question(
            organization, f"clusters/organizations/{organization}/users/{_USER}/recommendations", "POST", ids
        )
        yield _question(organization, f"rules/organizations/{organization}/disabled_for_clusters", "POST", ids)


def _question(organization: int, path: str, method: str = "GET", body: object = None) -> Question:
    identity = {"identity": {"org_id": str(organization), "user": {"user_id": _USER}, "type": "User"}}
    headers = {"x-rh-identity": base64.b64encode(json.dumps(identity).encode()).decode()}
    if body is None:
        return Question(path, method, None, headers)
    return Question(path, method, json.dumps(body).encode(), {**headers, "Content-Type": "application/json"})
