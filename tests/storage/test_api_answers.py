"""What each endpoint answers, field by field (`docs/rest.md`, sections 1.5 to 1.7 and 4)."""

from datetime import datetime
from typing import Any

import pytest

from tests.storage.conftest import MakeApi
from tests.support.api import CLUSTER, OTHER_CLUSTER, THIRD_CLUSTER, ApiUnderTest

REPORT = f"organizations/1/clusters/{CLUSTER}/users/u/report"
RULE = f"organizations/1/clusters/{CLUSTER}/users/u/rules/a.b.report|K"
NO_TIME = {"Time": "0001-01-01T00:00:00Z", "Valid": False}
LATER = "2026-05-04 11:30:15.25"


def _hit(api: ApiUnderTest, path: str = REPORT) -> dict[str, Any]:
    report = api.get(path).json["report"]
    hit: dict[str, Any] = report if path == RULE else report["reports"][0]
    return hit


def test_info_tells_what_is_running_in_strings(api: ApiUnderTest) -> None:
    info = api.get("info").json["info"]
    assert info["BuildVersion"] == info["UtilsVersion"] == "1.2.3"
    assert (info["OCP_DB_version"], info["DVO_DB_version"]) == ("32", "0")
    assert {"BuildBranch", "BuildCommit", "BuildTime"} <= set(info)
    assert all(isinstance(value, str) and value for value in info.values())


def test_organizations_are_distinct_and_ascending(api: ApiUnderTest) -> None:
    assert api.get("organizations").json == {"organizations": [], "status": "ok"}
    for number, org_id in enumerate((10, 9, 4294967295, 9, 2)):
        api.insert("report", org_id=org_id, cluster=f"c{number}", reported_at=None)
    assert api.get("organizations").json["organizations"] == [2, 9, 10, 4294967295]


def test_clusters_are_those_stored_within_the_limit_ascending(make_api: MakeApi) -> None:
    api = make_api(org_overview_limit_hours=3)
    stored = {
        "b": "2026-05-04 09:00:00",
        "a": "2026-05-04 09:00:00.000001",
        "c": "2026-05-04 09:00:00.000000",
        "d": "2026-05-04 13:00:00.5",
        "e": "2026-05-04 08:59:59.999999",
        "f": "2026-05-03 23:00:00",
        "g": None,
    }
    for cluster, reported_at in stored.items():
        api.insert("report", cluster=cluster, reported_at=reported_at, last_checked_at="2001-01-01 00:00:00")
    api.insert("report", org_id=2, cluster="h", reported_at="2026-05-04 11:00:00")
    assert api.get("organizations/1/clusters").json == {"clusters": ["a", "b", "c", "d"], "status": "ok"}


@pytest.mark.parametrize("reported_at", ["2026-05-04 08:00:00.5", "2026-05-04 08:00:00.500000"])
def test_the_limit_itself_counts_however_many_digits_its_time_has(make_api: MakeApi, reported_at: str) -> None:
    half_past = datetime(2026, 5, 4, 12, 0, 0, 500_000)
    api = make_api(clock=lambda: half_past, org_overview_limit_hours=4)
    api.insert("report", reported_at=reported_at)
    assert api.get("organizations/1/clusters").json["clusters"] == [CLUSTER]


def test_a_limit_longer_than_there_were_years_lists_everything(make_api: MakeApi) -> None:
    api = make_api(org_overview_limit_hours=10**15)
    api.insert("report", reported_at="0001-01-01 00:00:00")
    assert api.get("organizations/1/clusters").json["clusters"] == [CLUSTER]


def test_a_report_without_hits_counts_minus_one(api: ApiUnderTest) -> None:
    api.insert("report", last_checked_at="2026-05-04 07:59:59.999999")
    meta = {"cluster_name": "", "count": -1, "last_checked_at": "2026-05-04T07:59:59Z"}
    assert api.get(REPORT).json == {"report": {"meta": meta, "reports": []}, "status": "ok"}
    info = {"count": -1, "last_checked_at": "2026-05-04T07:59:59Z", "stored_at": "2026-05-04T08:00:00Z"}
    assert api.get(f"{REPORT}/info").json == {"metainfo": info, "status": "ok"}


def test_a_report_shows_when_its_data_was_gathered_if_it_is_known(api: ApiUnderTest) -> None:
    api.insert("report", gathered_at="2026-05-04 07:00:00.9")
    assert api.get(REPORT).json["report"]["meta"]["gathered_at"] == "2026-05-04T07:00:00Z"


def test_times_that_are_not_stored_are_empty(api: ApiUnderTest) -> None:
    api.insert("report", last_checked_at=None, reported_at=None)
    assert api.get(REPORT).json["report"]["meta"]["last_checked_at"] == ""
    assert api.get(f"{REPORT}/info").json["metainfo"] == {"count": -1, "last_checked_at": "", "stored_at": ""}


def test_a_year_before_1000_has_four_digits(api: ApiUnderTest) -> None:
    api.insert("report", last_checked_at="0099-01-01 00:00:00")
    assert api.get(REPORT).json["report"]["meta"]["last_checked_at"] == "0099-01-01T00:00:00Z"


def test_hits_are_those_of_cluster_and_organization_in_a_stable_order(api: ApiUnderTest) -> None:
    api.insert("report")
    for component, key in (("b.report", "K"), ("a.report", "L"), ("a.report", "K"), ("B.report", "K")):
        api.insert("rule_hit", rule_fqdn=component, error_key=key)
    api.insert("rule_hit", org_id=2)
    api.insert("rule_hit", cluster_id=OTHER_CLUSTER)
    report = api.get(REPORT).json["report"]
    assert report["meta"]["count"] == 4
    shown = [(hit["component"], hit["key"]) for hit in report["reports"]]
    assert shown == [("B.report", "K"), ("a.report", "K"), ("a.report", "L"), ("b.report", "K")]
    assert api.get(f"{REPORT}/info").json["metainfo"]["count"] == 4


def test_a_hit_that_nobody_said_anything_about(api: ApiUnderTest) -> None:
    api.insert("report")
    api.insert("rule_hit", created_at="2026-05-01 10:00:00.75")
    hit = {
        "component": "a.b.report",
        "key": "K",
        "user_vote": 0,
        "disabled": False,
        "disable_feedback": "",
        "disabled_at": "",
        "details": {},
    }
    assert _hit(api) == {**hit, "impacted": "2026-05-01T10:00:00Z"}
    assert _hit(api, RULE) == hit


def test_a_hit_without_a_time_has_no_impacted(api: ApiUnderTest) -> None:
    api.insert("report")
    api.insert("rule_hit", created_at=None)
    assert "impacted" not in _hit(api)


def test_votes_and_reasons_are_those_of_the_user_in_the_path(api: ApiUnderTest) -> None:
    api.insert("report")
    api.insert("rule_hit")
    api.insert("cluster_rule_user_feedback", user_vote=-1)
    api.insert("cluster_rule_user_feedback", user_id="v", user_vote=1)
    api.insert("cluster_user_rule_disable_feedback", user_id="v", message="theirs", updated_at=LATER)
    for path in (REPORT, RULE):
        mine, theirs = _hit(api, path), _hit_of_other_user(api, path)
        assert (mine["user_vote"], mine["disable_feedback"]) == (-1, "")
        assert (theirs["user_vote"], theirs["disable_feedback"]) == (1, "theirs")


def _hit_of_other_user(api: ApiUnderTest, path: str) -> dict[str, Any]:
    report = api.get(path.replace("/users/u/", "/users/v/")).json["report"]
    hit: dict[str, Any] = report if path == RULE else report["reports"][0]
    return hit


def test_in_a_report_disabled_at_is_the_time_of_the_reason(api: ApiUnderTest) -> None:
    api.insert("report")
    api.insert("rule_hit")
    api.insert("cluster_rule_toggle", disabled_at="2026-05-01 00:00:00")
    assert (_hit(api)["disabled"], _hit(api)["disabled_at"]) == (True, "")
    api.insert("cluster_user_rule_disable_feedback", updated_at=LATER)
    assert (_hit(api)["disabled"], _hit(api)["disabled_at"]) == (True, "2026-05-04T11:30:15Z")


def test_of_one_rule_disabled_at_is_the_time_of_the_toggle_also_when_it_is_on_again(api: ApiUnderTest) -> None:
    api.insert("report")
    api.insert("rule_hit")
    api.insert("cluster_user_rule_disable_feedback", updated_at=LATER)
    assert (_hit(api, RULE)["disabled"], _hit(api, RULE)["disabled_at"]) == (False, "")
    api.insert("cluster_rule_toggle", disabled=0, disabled_at="2026-05-01 00:00:00")
    assert (_hit(api, RULE)["disabled"], _hit(api, RULE)["disabled_at"]) == (False, "2026-05-01T00:00:00Z")
    assert _hit(api)["disabled"] is False


@pytest.mark.parametrize(
    "other",
    [{"org_id": "2"}, {"rule_id": "a.b"}, {"error_key": "L"}, {"cluster_id": OTHER_CLUSTER}, {"disabled": 0}],
)
def test_a_toggle_applies_to_exactly_its_organization_cluster_rule_and_error_key(
    api: ApiUnderTest, other: dict[str, Any]
) -> None:
    api.insert("report")
    api.insert("rule_hit")
    api.insert("cluster_rule_toggle", disabled_at=LATER, **other)
    assert _hit(api)["disabled"] is False
    assert _hit(api, RULE)["disabled"] is False


@pytest.mark.parametrize(
    "other", [{"rule_id": "a.b"}, {"error_key": "L"}, {"cluster_id": OTHER_CLUSTER}, {"user_id": "v"}]
)
def test_votes_and_reasons_apply_to_exactly_their_cluster_rule_error_key_and_user(
    api: ApiUnderTest, other: dict[str, Any]
) -> None:
    for cluster in (CLUSTER, OTHER_CLUSTER):
        api.insert("report", cluster=cluster)
    api.insert("rule_hit")
    api.insert("cluster_rule_user_feedback", **other)
    api.insert("cluster_user_rule_disable_feedback", **other)
    for path in (REPORT, RULE):
        hit = _hit(api, path)
        assert (hit["user_vote"], hit["disable_feedback"], hit["disabled_at"]) == (0, "", "")
    vote = api.get(f"clusters/{CLUSTER}/rules/a.b.report/error_key/K/users/u/get_vote")
    assert vote.json == {"status": f"Item with ID {CLUSTER}/a.b.report/u was not found in the storage"}


def test_an_acknowledgement_does_not_disable_a_hit(api: ApiUnderTest) -> None:
    api.insert("report")
    api.insert("rule_hit")
    api.insert("rule_disable")
    assert _hit(api)["disabled"] is False


def test_a_report_of_another_organization_is_not_found(api: ApiUnderTest) -> None:
    api.insert("report", org_id=2)
    api.insert("rule_hit")
    text = f"Item with ID 1/{CLUSTER} was not found in the storage"
    for path in (REPORT, f"{REPORT}/info"):
        assert (api.get(path).status_code, api.get(path).json) == (404, {"status": text})


def test_a_rule_without_report_at_its_end_is_another_rule(api: ApiUnderTest) -> None:
    api.insert("rule_hit")
    answer = api.get(RULE.replace(".report|", "|"))
    text = f"Item with ID 1/{CLUSTER}/a.b/K was not found in the storage"
    assert (answer.status_code, answer.json) == (404, {"status": text})


@pytest.mark.parametrize("other", [{"cluster_id": OTHER_CLUSTER}, {"error_key": "L"}, {"rule_fqdn": "a.c.report"}])
def test_a_rule_that_hits_another_cluster_or_has_another_error_key_is_not_found(
    api: ApiUnderTest, other: dict[str, Any]
) -> None:
    api.insert("rule_hit", **other)
    text = f"Item with ID 1/{CLUSTER}/a.b.report/K was not found in the storage"
    assert (api.get(RULE).status_code, api.get(RULE).json) == (404, {"status": text})


STORED_JSON = [
    "{}",
    "null",
    "1000.0",
    "12345678901234567890",
    "9" * 5000,
    "1e400",
    '{"b": 1, "a": 2, "b": 3}',
    '{ "spaces" :\n\t[ 1 , 2 ] }',
    '"\\ud800"',
    '{"x": "\\udc00 \\u0000 \\/"}',
    '"žluťoučký 😀"',
    "[" * 3000 + "]" * 3000,
    '"\x7f"',
    " 1 ",
]
NOT_JSON = [
    "NaN",
    "[NaN]",
    "Infinity",
    "{",
    "{'a': 1}",
    "text",
    " ",
    "01",
    "1 2",
    "1, 2",
    "1],[2",
    "\ufeff1",
    '"\t"',
    "tru",
]


@pytest.mark.parametrize("stored", STORED_JSON)
def test_valid_details_go_out_byte_for_byte(api: ApiUnderTest, stored: str) -> None:
    api.insert("report")
    api.insert("rule_hit", template_data=stored)
    assert f'"details":{stored}' in api.get(REPORT).text
    assert f'"details":{stored}' in api.get(RULE).text


@pytest.mark.parametrize("stored", NOT_JSON)
def test_details_that_are_no_json_go_out_as_a_string(api: ApiUnderTest, stored: str) -> None:
    api.insert("report")
    api.insert("rule_hit", template_data=stored)
    assert _hit(api)["details"] == stored
    assert _hit(api, RULE)["details"] == stored


def test_empty_details_are_null(api: ApiUnderTest) -> None:
    api.insert("report")
    api.insert("rule_hit", template_data="")
    assert _hit(api)["details"] is None


@pytest.mark.parametrize("stored", STORED_JSON)
def test_valid_reports_go_out_byte_for_byte(api: ApiUnderTest, stored: str) -> None:
    api.insert("report", report=stored)
    answer = api.get(f"organizations/1/clusters/{CLUSTER}/reports")
    assert f'"{CLUSTER}":{stored}' in answer.text
    assert f'"clusters":["{CLUSTER}"]' in answer.text


@pytest.mark.parametrize("stored", ["", *NOT_JSON])
def test_a_report_that_is_no_json_is_an_error_of_its_cluster(api: ApiUnderTest, stored: str) -> None:
    api.insert("report", report=stored)
    answer = api.get(f"organizations/1/clusters/{CLUSTER},{CLUSTER}/reports")
    expected = {"clusters": [], "errors": [CLUSTER, CLUSTER], "reports": {}, "generated_at": "", "status": "ok"}
    assert answer.json == expected


def test_reports_keep_the_order_of_the_request_and_its_duplicates(api: ApiUnderTest) -> None:
    for cluster in (CLUSTER, THIRD_CLUSTER):
        api.insert("report", cluster=cluster, report='{"x": 1.0}')
    listed = [THIRD_CLUSTER, OTHER_CLUSTER, CLUSTER, THIRD_CLUSTER, OTHER_CLUSTER]
    expected = {
        "clusters": [THIRD_CLUSTER, CLUSTER, THIRD_CLUSTER],
        "errors": [OTHER_CLUSTER, OTHER_CLUSTER],
        "reports": {CLUSTER: {"x": 1.0}, THIRD_CLUSTER: {"x": 1.0}},
        "generated_at": "",
        "status": "ok",
    }
    assert api.get(f"organizations/1/clusters/{','.join(listed)}/reports").json == expected
    assert api.post("organizations/1/clusters/reports", f'{{"clusters": {listed}}}'.replace("'", '"')).json == expected


def test_a_cluster_of_another_organization_makes_the_whole_list_improper(api: ApiUnderTest) -> None:
    api.insert("report")
    api.insert("report", org_id=2, cluster=OTHER_CLUSTER)
    answer = api.get(f"organizations/1/clusters/{CLUSTER},{OTHER_CLUSTER},{THIRD_CLUSTER}/reports")
    assert (answer.status_code, answer.json) == (400, {"status": "Improper organization ID"})


def test_recommendations_by_rule(api: ApiUnderTest) -> None:
    api.insert("recommendation")
    api.insert("recommendation", cluster_id=OTHER_CLUSTER)
    api.insert("recommendation", cluster_id=OTHER_CLUSTER, error_key="L", rule_id="a.b|L")
    api.insert("recommendation", cluster_id=THIRD_CLUSTER)
    api.insert("recommendation", org_id=2, cluster_id=CLUSTER, error_key="M", rule_id="a.b|M")
    body = f'["{CLUSTER}", "{OTHER_CLUSTER}", "{CLUSTER}"]'
    answer = api.post("recommendations/organizations/1/users/u/list", body)
    assert answer.json["recommendations"] == {"a.b|K": [OTHER_CLUSTER, CLUSTER], "a.b|L": [OTHER_CLUSTER]}


def test_recommendations_by_cluster(api: ApiUnderTest) -> None:
    api.insert("report", last_checked_at="2026-05-04 08:00:00.120000")
    api.insert("report_info")
    api.insert("recommendation", error_key="L", rule_id="a.b|L")
    api.insert("recommendation")
    api.insert("report", cluster=OTHER_CLUSTER, last_checked_at=None)
    api.insert("report", org_id=2, cluster=THIRD_CLUSTER)
    body = f'["{CLUSTER}", "{OTHER_CLUSTER}", "{THIRD_CLUSTER}"]'
    answer = api.post("clusters/organizations/1/users/u/recommendations", body)
    assert answer.json["clusters"] == {
        CLUSTER: {
            "created_at": "2026-05-04T08:00:00.12Z",
            "meta": {"cluster_version": "4.16.3"},
            "recommendations": ["a.b|K", "a.b|L"],
        },
        OTHER_CLUSTER: {"created_at": "", "meta": {"cluster_version": ""}, "recommendations": []},
    }


def test_clusters_hit_by_a_rule_are_ascending_with_their_versions(api: ApiUnderTest) -> None:
    api.insert("recommendation", created_at=LATER, impacted_since="2026-05-01 00:00:00.000001")
    api.insert("report_info")
    api.insert("recommendation", cluster_id=OTHER_CLUSTER, created_at=None, impacted_since=None)
    api.insert("recommendation", org_id=2, cluster_id=THIRD_CLUSTER)
    answer = api.get("rules/a.b|K/organizations/1/users/u/clusters_detail")
    assert answer.json["clusters"] == [
        {
            "cluster": OTHER_CLUSTER,
            "cluster_name": "",
            "last_checked_at": "",
            "impacted": "",
            "meta": {"cluster_version": ""},
        },
        {
            "cluster": CLUSTER,
            "cluster_name": "",
            "last_checked_at": "2026-05-04T11:30:15.25Z",
            "impacted": "2026-05-01T00:00:00.000001Z",
            "meta": {"cluster_version": "4.16.3"},
        },
    ]
    missing = api.get("rules/a.b|X/organizations/1/users/u/clusters_detail")
    assert (missing.status_code, missing.content_type) == (404, "application/json; charset=utf-8")
    assert missing.json == {"status": "Item with ID a.b|X was not found in the storage"}


def test_a_version_that_another_organization_had_is_not_shown(api: ApiUnderTest) -> None:
    api.insert("report")
    api.insert("recommendation")
    api.insert("report_info", org_id=2)
    (detail,) = api.get("rules/a.b|K/organizations/1/users/u/clusters_detail").json["clusters"]
    by_cluster = api.post("clusters/organizations/1/users/u/recommendations", f'["{CLUSTER}"]').json["clusters"]
    assert detail["meta"] == by_cluster[CLUSTER]["meta"] == {"cluster_version": ""}


def test_rules_switched_off_for_clusters(api: ApiUnderTest) -> None:
    api.insert("cluster_rule_toggle", disabled_at=LATER, enabled_at=LATER)
    api.insert("cluster_rule_toggle", cluster_id=OTHER_CLUSTER, disabled_at=None)
    api.insert("cluster_rule_toggle", cluster_id=THIRD_CLUSTER, disabled=0)
    api.insert("cluster_rule_toggle", rule_id="c.d", org_id="2")
    row = {"RuleID": "a.b.report", "ErrorKey": "K", "Disabled": 1, "EnabledAt": NO_TIME}
    updated = {"UpdatedAt": {"Time": "2026-05-04T08:00:00Z", "Valid": True}}
    first = {"ClusterID": OTHER_CLUSTER, "DisabledAt": NO_TIME, **row, **updated}
    second = {"ClusterID": CLUSTER, "DisabledAt": {"Time": "2026-05-04T11:30:15.25Z", "Valid": True}, **row, **updated}
    assert api.get("rules/organizations/1/disabled").json == {"rules": [first, second], "status": "ok"}
    listed = api.post("rules/organizations/1/disabled_for_clusters", f'["{CLUSTER}"]')
    assert listed.json == {"rules": [second], "status": "ok"}


def test_clusters_with_a_rule_switched_off_come_newest_first_and_those_without_a_time_last(api: ApiUnderTest) -> None:
    times = {"b": None, "a": None, "d": "2026-05-04 10:00:00", "c": "2026-05-04 10:00:00.0", "e": LATER}
    for cluster, disabled_at in times.items():
        api.insert("cluster_rule_toggle", cluster_id=cluster, disabled_at=disabled_at)
    api.insert("cluster_rule_toggle", cluster_id="f", disabled=0)
    api.insert("cluster_rule_toggle", cluster_id="g", org_id="2")
    clusters = api.get("clusters/rules/a.b.report/error_key/K/organizations/1/disabled").json["clusters"]
    assert [cluster["cluster_id"] for cluster in clusters] == ["e", "c", "d", "a", "b"]
    assert clusters[0] == {
        "cluster_id": "e",
        "cluster_name": "",
        "disabled_at": "2026-05-04T11:30:15.25Z",
        "justification": "",
    }
    assert clusters[-1]["disabled_at"] == ""


def test_the_justification_is_the_newest_reason_of_any_user(api: ApiUnderTest) -> None:
    api.insert("cluster_rule_toggle")
    reasons = [
        ("old", "2026-05-04 10:00:00.999999", {}),
        ("newest", "2026-05-04 10:00:01.5", {}),
        ("new", "2026-05-04 10:00:01.499999", {}),
        ("of another organization", LATER, {"org_id": "2"}),
        ("of another rule", LATER, {"rule_id": "a.b"}),
        ("of another error", LATER, {"error_key": "L"}),
        ("of another cluster", LATER, {"cluster_id": OTHER_CLUSTER}),
    ]
    for message, updated_at, other in reasons:
        row = {"user_id": message, "message": message, "updated_at": updated_at, **other}
        api.insert("cluster_user_rule_disable_feedback", **row)
    clusters = api.get("clusters/rules/a.b.report/error_key/K/organizations/1/disabled").json["clusters"]
    assert [cluster["justification"] for cluster in clusters] == ["newest"]


def test_the_reasons_of_a_user_in_all_organizations(api: ApiUnderTest) -> None:
    api.insert("cluster_user_rule_disable_feedback", updated_at=LATER)
    api.insert("cluster_user_rule_disable_feedback", org_id="2", cluster_id=OTHER_CLUSTER, message="")
    api.insert("cluster_user_rule_disable_feedback", user_id="v")
    row = {"RuleID": "a.b.report", "ErrorKey": "K", "AddedAt": {"Time": "2026-05-04T08:00:00Z", "Valid": True}}
    early, late = ({"Time": time, "Valid": True} for time in ("2026-05-04T08:00:00Z", "2026-05-04T11:30:15.25Z"))
    expected = [
        {"ClusterID": OTHER_CLUSTER, "Message": "", "UpdatedAt": early, **row},
        {"ClusterID": CLUSTER, "Message": "why", "UpdatedAt": late, **row},
    ]
    assert api.get("rules/users/%20u/disabled/feedback").json == {"reasons": expected, "status": "ok"}
    assert api.get("rules/users/x/disabled/feedback").json == {"reasons": [], "status": "ok"}


def test_rules_acknowledged_for_an_organization(api: ApiUnderTest) -> None:
    api.insert("rule_disable", justification=None)
    api.insert("rule_disable", error_key="A", justification="žádný", updated_at=LATER)
    api.insert("rule_disable", org_id="2")
    rule = {"org_id": 1, "user_id": "", "rule_id": "a.b.report"}
    created = {"created_at": {"Time": "2026-05-04T08:00:00Z", "Valid": True}}
    changed = {"Time": "2026-05-04T11:30:15.25Z", "Valid": True}
    first = {**rule, "error_key": "A", "justification": "žádný", **created, "updated_at": changed}
    second = {**rule, "error_key": "K", "justification": "", **created, "updated_at": NO_TIME}
    assert api.get("rules/organizations/1/disabled_system_wide").json["disabledRules"] == [first, second]
    one = api.get("rules/a.b.report/error_key/K/organizations/1/")
    assert one.json == {"disabledRule": second, "status": "ok"}
    assert api.get("rules/a.b.report/error_key/K/organizations/1").json == one.json
    missing = api.get("rules/a.b/error_key/K/organizations/1/")
    assert (missing.status_code, missing.json) == (404, {"status": "Rule was not disabled"})


@pytest.mark.parametrize(("stored", "shown"), [(1, 1), (-1, -1), (0, 0), (None, 0)])
def test_the_rating_of_a_rule(api: ApiUnderTest, stored: int | None, shown: int) -> None:
    api.insert("advisor_ratings", rating=stored)
    assert api.get("rules/a.b|K/organizations/1/rating").json == {
        "rating": {"rule": "a.b|K", "rating": shown},
        "status": "ok",
    }
    assert api.get("rules/a.b|K/organizations/2/rating").status_code == 404


def test_the_vote_of_a_user(api: ApiUnderTest) -> None:
    path = f"clusters/{CLUSTER}/rules/a.b.report/error_key/K/users/%20u/get_vote"
    assert api.get(path).json == {"status": f"Item with ID {CLUSTER} was not found in the storage"}
    api.insert("report")
    text = f"Item with ID {CLUSTER}/a.b.report/u was not found in the storage"
    assert (api.get(path).status_code, api.get(path).json) == (404, {"status": text})
    api.insert("cluster_rule_user_feedback", user_vote=0)
    assert api.get(path).json == {"vote": 0, "status": "ok"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"organizations/1/clusters/{CLUSTER}/users/{{}}/report", 200),
        (f"organizations/1/clusters/{CLUSTER}/users/{{}}/report/info", 200),
        (f"organizations/1/clusters/{CLUSTER}/users/{{}}/rules/a.b.report|K", 200),
        ("rules/a.b|K/organizations/1/users/{}/clusters_detail", 200),
        ("rules/users/{}/disabled/feedback", 200),
        ("clusters/rules/a.b.report/error_key/{}/organizations/1/disabled", 200),
        ("rules/a.b.report/error_key/{}/organizations/1/", 404),
        (f"clusters/{CLUSTER}/rules/a.b.report/error_key/{{}}/users/u/get_vote", 404),
        (f"clusters/{CLUSTER}/rules/a.b.report/error_key/K/users/{{}}/get_vote", 404),
    ],
)
def test_no_text_in_a_path_does_more_than_match_no_row(api: ApiUnderTest, path: str, status: int) -> None:
    api.insert("report")
    for table in ("rule_hit", "recommendation", "cluster_rule_toggle", "rule_disable"):
        api.insert(table)
    for table in ("cluster_user_rule_disable_feedback", "cluster_rule_user_feedback"):
        api.insert(table)
    for value in ("%00", "u%00", "K%00", "%ED%A0%80", "%EF%BF%BF", "%25s", "%5C", "'", "%7B%7D"):
        answer = api.get(path.format(value))
        assert answer.status_code == status, value
        assert "why" not in answer.text, value
