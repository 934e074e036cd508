"""With identities no organization gets a byte that belongs to another one (`docs/rest.md`, section 3).

Every route that the application has, as `falcon.inspect` finds it, is asked with one identity about the other's data
in every combination. What it answers is compared with the answer of an API on whose database the other organization
never had a row: so what exists elsewhere is answered like what does not exist. A route that is new fails until
`DECISIONS` says what it may show.
"""

import enum
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import falcon.inspect
import pytest
from falcon.testing import Result

from api_service.resources.writes import WRITE_PATHS
from tests.support.api import ApiUnderTest, identity
from tests.support.databases import migrate_database
from tests.support.engines import ENGINES, EngineUnderTest, name_of

OTHER, OWN = 1, 2
SECRET, MINE = "SECRET_OF_ORG_1", "TEXT_OF_ORG_2"
OTHERS = ("11111111-0000-4000-8000-000000000001", "eeeeeeee-0000-4000-8000-000000000001")
OWNED = ("22222222-0000-4000-8000-000000000002", "dddddddd-0000-4000-8000-000000000002")
NOWHERE = "77777777-0000-4000-8000-000000000007"
ALL_RULES = ("a.shared", f"a.{SECRET}", f"a.{MINE}", "a.stray", "a.hit")


class Shown(enum.Enum):
    """What a route may show, and so how its answers are checked."""

    NO_ORGANIZATION = "nothing that belongs to any organization"
    OWN = "what belongs to the identity's organization"
    OWN_OR_IMPROPER = "the same, but a listed cluster of another organization is told (section 4.5)"
    NOTHING = "no method is offered"


DECISIONS = {
    "": Shown.NO_ORGANIZATION,
    "info": Shown.NO_ORGANIZATION,
    "openapi.json": Shown.NO_ORGANIZATION,
    "metrics": Shown.NO_ORGANIZATION,
    "docs": Shown.NO_ORGANIZATION,
    "organizations": Shown.OWN,
    "organizations/{organization}/clusters": Shown.OWN,
    "organizations/{org_id}/clusters/{cluster}/users/{user_id}/report": Shown.OWN,
    "organizations/{org_id}/clusters/{cluster}/users/{user_id}/report/info": Shown.OWN,
    "organizations/{org_id}/clusters/{cluster}/users/{user_id}/rules/{rule_id}": Shown.OWN,
    "organizations/{org_id}/clusters/{cluster_list}/reports": Shown.OWN_OR_IMPROPER,
    "organizations/{org_id}/clusters/reports": Shown.OWN_OR_IMPROPER,
    "recommendations/organizations/{org_id}/users/{user_id}/list": Shown.OWN,
    "rules/{rule_selector}/organizations/{org_id}/users/{user_id}/clusters_detail": Shown.OWN,
    "clusters/organizations/{org_id}/users/{user_id}/recommendations": Shown.OWN,
    "rules/organizations/{org_id}/disabled": Shown.OWN,
    "clusters/rules/{rule_id}/error_key/{error_key}/organizations/{org_id}/disabled": Shown.OWN,
    "rules/organizations/{org_id}/disabled_for_clusters": Shown.OWN,
    "rules/users/{user_id}/disabled/feedback": Shown.OWN,
    "rules/organizations/{org_id}/disabled_system_wide": Shown.OWN,
    "rules/{rule_id}/error_key/{error_key}/organizations/{org_id}": Shown.OWN,
    "rules/{rule_selector}/organizations/{org_id}/rating": Shown.OWN,
    "clusters/{cluster}/rules/{rule_id}/error_key/{error_key}/users/{user_id}/get_vote": Shown.OWN,
    **dict.fromkeys(WRITE_PATHS, Shown.NOTHING),
}

_ORGANIZATIONS = (str(OWN), str(OTHER), "3")
VALUES = {
    "org_id": _ORGANIZATIONS,
    "organization": _ORGANIZATIONS,
    "organizations": _ORGANIZATIONS,
    "cluster": (OWNED[0], OTHERS[0], OTHERS[0].upper(), NOWHERE),
    "clusters": (OWNED[0], OTHERS[0]),
    "cluster_list": (*OWNED, *OTHERS, NOWHERE, f"{OWNED[0]},{OTHERS[1]}", f"{NOWHERE},{OTHERS[0]}"),
    "user_id": ("shared", SECRET, MINE),
    "rule_id": (*(f"{rule}.report" for rule in ALL_RULES), *(f"{rule}.report|K" for rule in ALL_RULES)),
    "rule_selector": tuple(f"{rule}|K" for rule in ALL_RULES),
    "error_key": ("K", SECRET),
}
_LISTS = ([], [OWNED[0]], [OTHERS[0]], [OWNED[1], OTHERS[1]], [OTHERS[0].upper()], [NOWHERE])
BODIES = (None, *(json.dumps(ids) for ids in _LISTS), *(json.dumps({"clusters": ids}) for ids in _LISTS))
QUERY_STRINGS = ("", "limit=1", f"limit=1&after={OTHERS[0]}", f"limit=1&after={OWNED[0]}", f"after={OTHERS[1]}")
PAGED = {
    "organizations/{organization}/clusters",
    "rules/{rule_selector}/organizations/{org_id}/users/{user_id}/clusters_detail",
}

# where the other organization's answers hold neither a text nor a cluster of its own
SHOWS_NO_TEXT = {
    "organizations",
    "organizations/{org_id}/clusters/{cluster}/users/{user_id}/report/info",
    "clusters/{cluster}/rules/{rule_id}/error_key/{error_key}/users/{user_id}/get_vote",
}


def _insert_organization(api: ApiUnderTest, org_id: int, clusters: tuple[str, ...], text: str) -> None:
    """Give an organization something in every table, and `text` in each of its rows that can hold it."""
    data = json.dumps({"text": text})
    rules = ("a.shared", f"a.{text}")
    for cluster in clusters:
        api.insert("report", org_id=org_id, cluster=cluster, report=data, reported_at="2026-05-04 11:30:00")
        api.insert("report_info", org_id=org_id, cluster_id=cluster, version_info=text)
        of_cluster = {"org_id": org_id, "cluster_id": cluster}
        for rule, error_key in product(rules, ("K", text)):
            api.insert("rule_hit", **of_cluster, rule_fqdn=f"{rule}.report", error_key=error_key, template_data=data)
            selector = f"{rule}|{error_key}"
            hit = {"rule_fqdn": rule, "error_key": error_key, "rule_id": selector}
            api.insert("recommendation", **of_cluster, **hit, created_at="2026-05-04 11:30:00")
            choice = {"org_id": str(org_id), "cluster_id": cluster, "rule_id": f"{rule}.report", "error_key": error_key}
            api.insert("cluster_rule_toggle", **choice, disabled_at="2026-05-04 11:00:00")
            for user in ("shared", text):
                api.insert("cluster_user_rule_disable_feedback", **choice, user_id=user, message=text)
                api.insert("cluster_rule_user_feedback", **choice, user_id=user, user_vote=1)
    for rule, error_key in product(rules, ("K", text)):
        acknowledged = {"org_id": str(org_id), "rule_id": f"{rule}.report", "error_key": error_key}
        api.insert("rule_disable", **acknowledged, justification=text)
        rated = {"org_id": str(org_id), "rule_fqdn": rule, "error_key": error_key, "rule_id": f"{rule}|{error_key}"}
        api.insert("advisor_ratings", **rated, rating=1)


def _insert_strays(api: ApiUnderTest) -> None:
    """Let the other organization have rows about a cluster that is not its own."""
    cluster = OWNED[0]
    api.insert("rule_hit", org_id=OTHER, cluster_id=cluster, rule_fqdn=f"a.{SECRET}.report")
    api.insert("recommendation", org_id=OTHER, cluster_id=cluster, rule_fqdn="a.stray", rule_id="a.stray|K")
    for rule in ("a.hit", f"a.{SECRET}"):
        api.insert("cluster_rule_toggle", org_id=str(OTHER), cluster_id=cluster, rule_id=f"{rule}.report")
    reason = {"cluster_id": cluster, "rule_id": "a.stray.report", "user_id": SECRET, "message": SECRET}
    newest = "2026-05-04 11:59:59"
    api.insert("cluster_user_rule_disable_feedback", org_id=str(OTHER), **reason, updated_at=newest)


@dataclass(frozen=True)
class Apis:
    """Two APIs with identities: one knows both organizations, the other one `OWN` alone."""

    of_both: ApiUnderTest
    of_one: ApiUnderTest


@pytest.fixture(scope="module", params=ENGINES, ids=name_of)
def apis(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apis]:
    """Yield both APIs, on each engine in turn."""
    engine: EngineUnderTest = request.param
    with (
        engine.new_database(request, tmp_path_factory.mktemp("both")) as both,
        engine.new_database(request, tmp_path_factory.mktemp("one")) as one,
    ):
        filled = _filled(migrate_database(both), migrate_database(one))
        yield filled
        for api in (filled.of_both, filled.of_one):
            api.close()


def _filled(both: str, one: str) -> Apis:
    apis = Apis(ApiUnderTest(both, auth="xrh"), ApiUnderTest(one, auth="xrh"))
    for api in (apis.of_both, apis.of_one):
        _insert_organization(api, OWN, OWNED, MINE)
        # about which the other organization has rows too
        api.insert("cluster_rule_toggle", org_id=str(OWN), cluster_id=OWNED[0], rule_id="a.stray.report")
        api.insert("rule_hit", org_id=OWN, cluster_id=OWNED[0], rule_fqdn="a.hit.report")
    _insert_organization(apis.of_both, OTHER, OTHERS, SECRET)
    _insert_strays(apis.of_both)
    return apis


@dataclass(frozen=True)
class Asked:
    """A request that any identity can send."""

    method: str
    path: str
    body: str | None
    query_string: str

    def of(self, api: ApiUnderTest, org_id: int) -> Result:
        """Send it with the identity of an organization."""
        request = {"headers": identity(str(org_id)), "body": self.body, "query_string": self.query_string}
        return api.ask(self.method, self.path, **request)

    @property
    def lists_a_cluster_of_the_other(self) -> bool:
        """Whether its path or body has the id of one."""
        return any(cluster in f"{self.path} {self.body}".lower() for cluster in OTHERS)


def _routes(api: ApiUnderTest) -> dict[str, set[str]]:
    """Return the methods that are answered for each path template, relative to the prefix, but for OPTIONS."""
    router = api.app._router
    routes = {}
    for route in falcon.inspect.inspect_compiled_router(router):
        # the router numbers parameters; a path that it finds comes with its own template
        found = router.find(re.sub(r"\{\w+\}", "x", route.path))
        assert found is not None
        template = found[3].removeprefix(api.settings.prefix).rstrip("/")
        # what is internal refuses a method
        routes[template] = {method.method for method in route.methods if not method.internal} - {"OPTIONS"}
    return routes


def _requests(api: ApiUnderTest, template: str) -> list[Asked]:
    """Return every combination of values for a route."""
    names = re.findall(r"\{(\w+)\}", template)
    missing = set(names) - set(VALUES)
    assert not missing, f"{template} has parameters without values of both organizations, add them to VALUES: {missing}"
    pattern = re.sub(r"\{\w+\}", "{}", template)
    paths = [pattern.format(*chosen) for chosen in product(*(VALUES[name] for name in names))]
    takes_a_body = any(r.endpoint.path.rstrip("/") == template and r.endpoint.body for r in api.resources)
    bodies = BODIES if takes_a_body else (None,)
    query_strings = QUERY_STRINGS if template in PAGED else ("",)
    methods = sorted(_routes(api)[template])
    return [Asked(*chosen) for chosen in product(methods, paths, bodies, query_strings)]


def _comparable(answer: Result) -> tuple[int, str, dict[str, str]]:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    headers.pop("x-request-id")
    return answer.status_code, answer.text, headers


def _belongs_to_the_other(text: str) -> bool:
    return any(part in text for part in (SECRET, *OTHERS))


TEMPLATES = {shown: sorted(path for path, found in DECISIONS.items() if found is shown) for shown in Shown}


def test_every_route_has_a_decision_and_nothing_answers_beside_the_routes(apis: Apis) -> None:
    app = apis.of_both.app
    without = sorted(set(_routes(apis.of_both)) - {path.rstrip("/") for path in DECISIONS})
    assert without == [], "say in DECISIONS what these routes may show"
    assert sorted({path.rstrip("/") for path in DECISIONS} - set(_routes(apis.of_both))) == []
    assert falcon.inspect.inspect_sinks(app) == []
    assert falcon.inspect.inspect_static_routes(app) == []


@pytest.mark.parametrize("template", TEMPLATES[Shown.OWN])
def test_another_organization_is_answered_as_if_it_had_nothing(apis: Apis, template: str) -> None:
    shown = ""
    for asked in _requests(apis.of_both, template):
        # the other one asks first, so that nothing may be kept from its answer
        answer = asked.of(apis.of_both, OTHER)
        shown += answer.text if answer.status_code == 200 else ""
        assert _comparable(asked.of(apis.of_both, OWN)) == _comparable(asked.of(apis.of_one, OWN)), asked
    assert shown, "the other organization has nothing to hide here"
    assert _belongs_to_the_other(shown) is (template not in SHOWS_NO_TEXT)


@pytest.mark.parametrize("template", TEMPLATES[Shown.OWN_OR_IMPROPER])
def test_of_a_listed_cluster_only_that_it_is_of_another_organization_is_told(apis: Apis, template: str) -> None:
    told = 0
    for asked in _requests(apis.of_both, template):
        asked.of(apis.of_both, OTHER)
        answer, expected = asked.of(apis.of_both, OWN), asked.of(apis.of_one, OWN)
        if asked.lists_a_cluster_of_the_other and expected.status_code == 200:
            told += 1
            assert (answer.status_code, answer.json) == (400, {"status": "Improper organization ID"}), asked
        else:
            assert _comparable(answer) == _comparable(expected), asked
    assert told


@pytest.mark.parametrize("template", TEMPLATES[Shown.NO_ORGANIZATION])
def test_what_is_open_to_all_shows_nothing_of_anybody(apis: Apis, template: str) -> None:
    answers = [asked.of(apis.of_both, OWN) for asked in _requests(apis.of_both, template)]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert not any(_belongs_to_the_other(answer.text) or MINE in answer.text for answer in answers)


def test_a_path_for_writes_offers_nothing(apis: Apis) -> None:
    routes = _routes(apis.of_both)
    assert [template for template in WRITE_PATHS if routes[template]] == []
