"""Who gets an answer with `api.auth = "xrh"` (`docs/rest.md`, section 3)."""

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import CLUSTER, OTHER_CLUSTER, QUESTIONS, THIRD_CLUSTER, ApiUnderTest, identity, token

MALFORMED = "Malformed authentication token"
GOOD = '{"identity": {"org_id": "1"}}'


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> ApiUnderTest:
    """Return an API with identities, and clusters of organizations 1 and 2."""
    api = ApiUnderTest(tmp_path_factory.mktemp("api"), auth="xrh")
    api.insert("report")
    api.insert("report", org_id=2, cluster=OTHER_CLUSTER)
    return api


def _refused(api: ApiUnderTest, headers: dict[str, str], path: str = "organizations") -> str:
    answer = api.get(path, headers=headers)
    assert answer.status_code == 401
    assert list(answer.json) == ["status"]
    text: str = answer.json["status"]
    return text


@pytest.mark.parametrize(
    "path", ["", "info", "organizations", "organizations/x/clusters", f"organizations/1/clusters/{CLUSTER}/reports"]
)
def test_without_an_identity_nothing_is_answered(api: ApiUnderTest, path: str) -> None:
    assert _refused(api, {}, path) == "Missing auth token"
    assert _refused(api, {"x-rh-identity": ""}, path) == "Missing auth token"
    assert _refused(api, {"x_rh_identity2": identity()["x-rh-identity"]}, path) == "Missing auth token"


@pytest.mark.parametrize("path", ["metrics", "openapi.json"])
@pytest.mark.parametrize("headers", [{}, {"x-rh-identity": "not base64!"}, identity("2")])
def test_metrics_and_the_document_never_look_at_the_identity(
    api: ApiUnderTest, path: str, headers: dict[str, str]
) -> None:
    assert api.get(path, headers=headers).status_code == 200


def test_with_identities_switched_off_the_header_is_ignored(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path)
    assert api.get("organizations/1/clusters", headers={"x-rh-identity": "not base64!"}).status_code == 200
    assert api.get("organizations/1/clusters", headers=identity("2")).status_code == 200


def _unpadded() -> str:
    return base64.b64encode(b'{"identity":{"org_id":"1"}} ').decode().rstrip("=")


@pytest.mark.parametrize(
    "value",
    [
        "not base64!",
        "=",
        "====",
        "A===",
        _unpadded(),
        f"{_unpadded()}===",
        base64.b64encode(GOOD.encode()).decode() + "====",
        base64.b64encode(b'{"identity":{"org_id":"1"},"x":"\xc3\xbf\xc3\xbf?>?>"}')
        .decode()
        .replace("/", "_")
        .replace("+", "-"),
        " ".join(base64.b64encode(GOOD.encode()).decode()),
        base64.b64encode(GOOD.encode()).decode() + ", " + base64.b64encode(GOOD.encode()).decode(),
        "\u00e9\u00e9\u00e9\u00e9",
    ],
)
def test_anything_but_padded_base64_of_the_standard_alphabet_is_malformed(api: ApiUnderTest, value: str) -> None:
    assert _refused(api, {"x-rh-identity": value}) == MALFORMED


def test_the_standard_alphabet_is_taken(api: ApiUnderTest) -> None:
    value = base64.b64encode(b'{"identity":{"org_id":"1"},"x":"\xc3\xbf\xc3\xbf?>?>"}').decode()
    assert "/" in value or "+" in value
    assert api.get("organizations", headers={"x-rh-identity": value}).status_code == 200


@pytest.mark.parametrize(
    "text",
    [
        b"no json",
        b"\xff",
        b'{"identity": {"org_id": "1"}',
        b'"x"',
        b"1",
        b"true",
        b"[]",
        b"[" * 10_000,
        b"NaN",
        f"\ufeff{GOOD}".encode(),
        GOOD.encode("utf-16"),
        f"{GOOD} x".encode(),
        b'{"identity": {"org_id": "1"}, "x": NaN}',
    ],
)
def test_a_token_that_is_no_json_object_is_malformed(api: ApiUnderTest, text: bytes) -> None:
    assert _refused(api, token(text)) == MALFORMED


@pytest.mark.parametrize(
    "value",
    [
        {"identity": []},
        {"identity": "x"},
        {"identity": {"org_id": 1}},
        {"identity": {"org_id": ""}},
        {"identity": {"org_id": "-1"}},
        {"identity": {"org_id": "+1"}},
        {"identity": {"org_id": " 1"}},
        {"identity": {"org_id": "1a"}},
        {"identity": {"org_id": "1\n"}},
        {"identity": {"org_id": "\u0661"}},
        {"identity": {"org_id": "4294967296"}},
        {"identity": {"org_id": "9" * 5000}},
        {"identity": {"org_id": ["1"]}},
        {"identity": {"org_id": "1", "account_number": 5}},
        {"identity": {"org_id": "1", "type": True}},
        {"identity": {"org_id": "1", "user": "x"}},
        {"identity": {"org_id": "1", "user": {"user_id": 11}}},
        {"identity": {"org_id": "1", "user": {"username": {}}}},
        {"identity": {"org_id": "1", "user": {"email": []}}},
        {"identity": {"org_id": "1", "service_account": []}},
        {"identity": {"org_id": "1", "service_account": {"client_id": 1}}},
        {"identity": {"org_id": "1", "service_account": {"username": 1}}},
        {"identity": {"account_number": 5}},
    ],
)
def test_a_known_field_of_a_wrong_type_is_malformed(api: ApiUnderTest, value: Any) -> None:
    assert _refused(api, token(value)) == MALFORMED


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"identity": None},
        {"identity": {}},
        {"identity": {"org_id": None}},
        {"identity": {"org_id": "0"}},
        {"identity": {"org_id": "000"}},
        {"Identity": {"org_id": "1"}},
        {"identity": {"Org_id": "1"}},
        {"identity": {"internal": {"org_id": "1"}}},
    ],
)
def test_a_token_without_an_organization_is_refused(api: ApiUnderTest, value: Any) -> None:
    assert _refused(api, token(value)) not in (MALFORMED, "Missing auth token")


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        '{"identity": {"org_id": "0001"}}',
        '{"identity": {"org_id": "%s1"}}' % ("0" * 5000),
        '{"identity": {"org_id": 5, "org_id": "1"}}',
        '{"identity": 5, "identity": {"org_id": "1"}}',
        '{"identity": {"org_id": "1", "user": null, "service_account": null, "type": null, "account_number": null}}',
        '{"identity": {"org_id": "1", "user": {"user_id": "", "username": null, "is_active": 5}}}',
        '{"identity": {"org_id": "1", "service_account": {"client_id": "c", "username": "s"}}}',
        '{"identity": {"org_id": "1", "internal": {"org_id": 2}, "extra": [1, {}]}, "entitlements": 5}',
        '{"identity": {"org_id": "1", "x": %s, "y": "\\ud800"}}' % ("9" * 5000),
        f" {GOOD}\n",
    ],
)
def test_an_identity_of_an_organization_is_taken(api: ApiUnderTest, text: str) -> None:
    answer = api.get("organizations", headers=token(text.encode()))
    assert answer.json == {"organizations": [1], "status": "ok"}


def test_another_organization_than_that_of_the_path_is_forbidden_whether_it_has_data_or_not(api: ApiUnderTest) -> None:
    for path_org, own in (("1", "2"), ("777", "1"), ("1", "4294967295"), ("0001", "02")):
        answer = api.get(f"organizations/{path_org}/clusters", headers=identity(own))
        text = (
            "you have no permissions to get or change info about the organization with ID "
            f"{int(path_org)}; you can access info about organization with ID {int(own)}"
        )
        assert (answer.status_code, answer.json) == (403, {"status": text})
    assert api.get("organizations/0777/clusters", headers=identity("777")).status_code == 200


def test_the_checks_come_in_their_order(api: ApiUnderTest) -> None:
    path = "organizations/{}/clusters/reports"
    assert api.post(path.format("x"), "{", headers={}).status_code == 401
    assert api.post(path.format("x"), "{", headers=identity("2")).status_code == 400
    assert api.post(path.format("1"), "{", headers=identity("2")).status_code == 403
    assert api.post(path.format("1"), "{", headers=identity("1")).status_code == 400
    assert api.get("organizations/1/clusters/y/users/u/report", headers=identity("2")).status_code == 400


@pytest.mark.parametrize(("method", "path"), [*QUESTIONS, ("GET", ""), ("GET", "info")])
def test_every_endpoint_asks_for_the_identity_before_it_looks_at_anything_else(
    api: ApiUnderTest, method: str, path: str
) -> None:
    for asked in (path, path.replace("/1/", "/x/")):
        answer = api.ask(method, asked, body="{")
        assert (answer.status_code, answer.json) == (401, {"status": "Missing auth token"})


@pytest.mark.parametrize(("method", "path"), [question for question in QUESTIONS if "/1/" in question[1]])
def test_every_path_with_an_organization_is_closed_to_others_after_its_parameters_and_before_its_body(
    api: ApiUnderTest, method: str, path: str
) -> None:
    text = (
        "you have no permissions to get or change info about the organization with ID 1;"
        " you can access info about organization with ID 2"
    )
    for body in ("", "{"):
        answer = api.ask(method, path, body=body, headers=identity("2"))
        assert (answer.status_code, answer.json) == (403, {"status": text})
    for broken in (path.replace("/1/", "/x/"), path.replace("/u/", "/%20/"), path.replace("a.b", "-")):
        if broken != path and not path.endswith("report/info"):
            assert api.ask(method, broken, body="{", headers=identity("2")).status_code == 400


def test_organizations_shows_the_own_one_alone(api: ApiUnderTest) -> None:
    assert api.get("organizations", headers=identity("2")).json["organizations"] == [2]
    assert api.get("organizations", headers=identity("3")).json["organizations"] == []


def test_a_vote_on_a_cluster_of_another_organization_is_answered_as_if_there_were_no_such_cluster(
    tmp_path: Path,
) -> None:
    api = ApiUnderTest(tmp_path, auth="xrh")
    api.insert("report")
    api.insert("cluster_rule_user_feedback", user_vote=-1)
    path = "clusters/{}/rules/a.b.report/error_key/K/users/u/get_vote"
    assert api.get(path.format(CLUSTER), headers=identity("1")).json == {"vote": -1, "status": "ok"}
    foreign = api.get(path.format(CLUSTER), headers=identity("2"))
    unknown = api.get(path.format(THIRD_CLUSTER), headers=identity("2"))
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert foreign.json["status"] == f"Item with ID {CLUSTER} was not found in the storage"
    assert foreign.text.replace(CLUSTER, THIRD_CLUSTER) == unknown.text


def test_the_reasons_of_a_user_in_other_organizations_are_left_out(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path, auth="xrh")
    api.insert("cluster_user_rule_disable_feedback", message="mine")
    api.insert("cluster_user_rule_disable_feedback", cluster_id=OTHER_CLUSTER, org_id="2", message="foreign")
    answer = api.get("rules/users/u/disabled/feedback", headers=identity("1"))
    assert [reason["Message"] for reason in answer.json["reasons"]] == ["mine"]


def test_the_user_of_the_path_counts_not_that_of_the_identity(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path, auth="xrh")
    api.insert("cluster_user_rule_disable_feedback", user_id="12")
    answer = api.get("rules/users/12/disabled/feedback", headers=identity("1"))
    assert len(answer.json["reasons"]) == 1
