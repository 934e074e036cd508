"""What each parameter of a path may be, and the exact answer if it is not (`docs/rest.md`, section 2)."""

import pytest

from tests.support.api import CLUSTER, ApiUnderTest

HYPHENATED = f"organizations/1/clusters/{CLUSTER}/users/u"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> ApiUnderTest:
    """Return an API that knows one cluster with one hit."""
    api = ApiUnderTest(tmp_path_factory.mktemp("api"))
    api.insert("report")
    api.insert("rule_hit")
    return api


def _refused(api: ApiUnderTest, path: str) -> str:
    answer = api.get(path)
    assert answer.status_code == 400
    assert list(answer.json) == ["status"]
    text: str = answer.json["status"]
    return text


def _general(name: str, value: str, reason: str) -> str:
    return f"Error during parsing param '{name}' with value '{value}'. Error: '{reason}'"


@pytest.mark.parametrize(
    "value",
    ["-1", "+1", "1.0", "1_0", "1a", " 1", "1 ", "x", "0x1", "²", "\u0661", "1\n", "18446744073709551616", "9" * 5000],
)
def test_an_organization_that_is_no_unsigned_integer_is_refused(api: ApiUnderTest, value: str) -> None:
    encoded = value.replace(" ", "%20").replace("\n", "%0A")
    assert _refused(api, f"organizations/{encoded}/clusters") == _general(
        "organization", value, "unsigned integer expected"
    )


@pytest.mark.parametrize("value", ["0", "000", "0" * 5000])
def test_organization_zero_is_refused_as_it_was_written(api: ApiUnderTest, value: str) -> None:
    text = _general("organization", value, "positive value expected")
    assert _refused(api, f"organizations/{value}/clusters") == text


@pytest.mark.parametrize("value", ["4294967296", "18446744073709551615", "0004294967296"])
def test_an_organization_above_32_bits_is_refused_with_the_plain_number(api: ApiUnderTest, value: str) -> None:
    assert _refused(api, f"organizations/{value}/clusters") == f"value {int(value)} out of range for uint32"


@pytest.mark.parametrize("value", ["4294967295", "0004294967295", f"{'0' * 5000}4294967295"])
def test_the_largest_organization_and_leading_zeros_are_valid(api: ApiUnderTest, value: str) -> None:
    assert api.get(f"organizations/{value}/clusters").json == {"clusters": [], "status": "ok"}
    answer = api.get(f"organizations/{value}/clusters/{CLUSTER}/users/u/report")
    assert answer.json == {"status": f"Item with ID 4294967295/{CLUSTER} was not found in the storage"}


def test_the_parameter_is_called_organization_in_the_list_of_clusters_alone(api: ApiUnderTest) -> None:
    assert "param 'organization'" in _refused(api, "organizations/x/clusters")
    assert "param 'org_id'" in _refused(api, f"organizations/x/clusters/{CLUSTER}/reports")


@pytest.mark.parametrize(
    "written",
    [
        CLUSTER.upper(),
        CLUSTER.replace("-", ""),
        f"{{{CLUSTER}}}",
        f"urn:uuid:{CLUSTER}",
        f"URN:UUID:{CLUSTER.upper()}",
        f"Urn:Uuid:{CLUSTER}",
    ],
)
def test_every_form_of_a_cluster_id_finds_the_cluster(api: ApiUnderTest, written: str) -> None:
    assert api.get(f"organizations/1/clusters/{written}/users/u/report").status_code == 200
    assert api.get(f"organizations/1/clusters/{written}/reports").json["clusters"] == [CLUSTER]
    answer = api.get(f"organizations/2/clusters/{written}/users/u/report")
    assert answer.json == {"status": f"Item with ID 2/{CLUSTER} was not found in the storage"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("aaaa", "invalid UUID length: 4"),
        (f" {CLUSTER}", "invalid UUID length: 37"),
        ("žluťoučký", "invalid UUID length: 13"),
        (f"urx:uuid:{CLUSTER}", 'invalid urn prefix: "urx:uuid:"'),
        ("g" * 32, "invalid UUID format"),
        (CLUSTER.replace("-", "_"), "invalid UUID format"),
        (f"({CLUSTER})", "invalid UUID format"),
        (f"{CLUSTER[:-1]}\n", "invalid UUID format"),
        (f"{CLUSTER[:-1]}\0", "invalid UUID format"),
    ],
)
def test_a_broken_cluster_id_is_refused_with_its_reason(api: ApiUnderTest, value: str, reason: str) -> None:
    encoded = value.replace(" ", "%20").replace("\n", "%0A").replace("\0", "%00")
    assert _refused(api, f"organizations/1/clusters/{encoded}/users/u/report") == _general("cluster", value, reason)
    text = f"invalid cluster ID: '{value}'. Error: {reason}"
    assert _refused(api, f"organizations/1/clusters/{CLUSTER},{encoded},zz/reports") == text


@pytest.mark.parametrize("clusters", [f"{CLUSTER},", f",{CLUSTER}", f"{CLUSTER},,{CLUSTER}", ","])
def test_an_empty_element_of_a_list_is_an_element(api: ApiUnderTest, clusters: str) -> None:
    text = "invalid cluster ID: ''. Error: invalid UUID length: 0"
    assert _refused(api, f"organizations/1/clusters/{clusters}/reports") == text


@pytest.mark.parametrize("user", ["%20", "%09%0A", "%C2%A0", "%E3%80%80%20", "%E2%80%A8"])
def test_a_user_of_white_space_is_missing(api: ApiUnderTest, user: str) -> None:
    text = "Missing required param from request: user_id"
    assert _refused(api, f"organizations/1/clusters/{CLUSTER}/users/{user}/report") == text


@pytest.mark.parametrize("user", ["u", "%20u%20", "%C2%A0u%E2%80%83", "%0Au"])
def test_white_space_around_a_user_is_cut_off(api: ApiUnderTest, user: str) -> None:
    text = f"Item with ID {CLUSTER}/a.b/u was not found in the storage"
    answer = api.get(f"clusters/{CLUSTER}/rules/a.b/error_key/K/users/{user}/get_vote")
    assert (answer.status_code, answer.json) == (404, {"status": text})


@pytest.mark.parametrize("user", ["%1C", "%00", "%E2%80%8B", "'%20OR%201=1--", "a%2Cb"])
def test_any_other_text_is_a_user(api: ApiUnderTest, user: str) -> None:
    assert api.get(f"organizations/1/clusters/{CLUSTER}/users/{user}/report").status_code == 200


def test_the_user_of_report_info_is_not_checked(api: ApiUnderTest) -> None:
    assert api.get(f"organizations/1/clusters/{CLUSTER}/users/%20/report/info").status_code == 200


@pytest.mark.parametrize("value", ["a'b", "a-b", "a|b", "a b", "ž", "a\n"])
def test_a_rule_id_is_of_latin_characters(api: ApiUnderTest, value: str) -> None:
    reason = "invalid rule ID, it must contain only from latin characters, number, underscores or dots"
    encoded = value.replace(" ", "%20").replace("\n", "%0A")
    path = f"clusters/rules/{encoded}/error_key/K/organizations/1/disabled"
    assert _refused(api, path) == _general("rule_id", value, reason)


@pytest.mark.parametrize("error_key", ["K", "k-k", "a%20b", "%00", "ž", "'"])
def test_an_error_key_is_any_text(api: ApiUnderTest, error_key: str) -> None:
    path = f"clusters/rules/x/error_key/{error_key}/organizations/1/disabled"
    assert api.get(path).json == {"clusters": [], "status": "ok"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("a", "invalid rule ID, it must contain only rule ID and error key separated by |"),
        ("a|b|c", "invalid rule ID, it must contain only rule ID and error key separated by |"),
        ("|", "invalid rule ID, each part of ID must contain only latin characters, numbers, underscores or dots"),
        ("a|", "invalid rule ID, each part of ID must contain only latin characters, numbers, underscores or dots"),
        ("a|b-c", "invalid rule ID, each part of ID must contain only latin characters, numbers, underscores or dots"),
        ("a|b\n", "invalid rule ID, each part of ID must contain only latin characters, numbers, underscores or dots"),
    ],
)
def test_a_rule_with_its_error_key_is_refused_in_a_nested_text(api: ApiUnderTest, value: str, reason: str) -> None:
    nested = f"Error during validating param 'rule' with value '{value}'. Error: '{reason}'"
    path = f"{HYPHENATED}/rules/{value}".replace("\n", "%0A")
    assert _refused(api, path) == _general("rule_id", value, nested)


@pytest.mark.parametrize("separator", ["|", "%7C"])
def test_the_separator_may_come_raw_or_encoded(api: ApiUnderTest, separator: str) -> None:
    assert api.get(f"{HYPHENATED}/rules/a.b.report{separator}K").status_code == 200


@pytest.mark.parametrize(
    "value", ["x", "a|K", "a.b", "a.b|K.L", "a.b|K|L", ".b|K", "a.|K", "a.b|", "a.b|K\n", "a-b.c|K"]
)
def test_a_rule_selector_is_a_dotted_component_and_an_error_key(api: ApiUnderTest, value: str) -> None:
    reason = "Param rule_selector is not a valid rule selector (plugin_name|error_key)"
    path = f"rules/{value}/organizations/1/rating".replace("\n", "%0A")
    assert _refused(api, path) == _general("rule_selector", value, reason)


def test_a_rule_selector_with_report_is_valid_and_finds_nothing(api: ApiUnderTest) -> None:
    api.insert("advisor_ratings", rating=1)
    assert api.get("rules/a.b|K/organizations/1/rating").json["rating"] == {"rule": "a.b|K", "rating": 1}
    answer = api.get("rules/a.b.report|K/organizations/1/rating")
    assert answer.json == {"status": "Item with ID 1/a.b.report|K/rating was not found in the storage"}


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("organizations/x/clusters/y/users/%20/report", "param 'cluster'"),
        (f"organizations/x/clusters/{CLUSTER}/users/%20/report", "user_id"),
        (f"organizations/x/clusters/{CLUSTER}/users/u/report", "param 'org_id'"),
        ("organizations/x/clusters/y/users/%20/report/info", "param 'cluster'"),
        ("organizations/x/clusters/y/users/%20/rules/z", "param 'cluster'"),
        (f"organizations/x/clusters/{CLUSTER}/users/%20/rules/z", "user_id"),
        (f"organizations/x/clusters/{CLUSTER}/users/u/rules/z", "param 'org_id'"),
        ("organizations/x/clusters/y/reports", "param 'org_id'"),
        ("rules/z/organizations/x/users/%20/clusters_detail", "param 'org_id'"),
        ("rules/z/organizations/1/users/%20/clusters_detail", "param 'rule_selector'"),
        ("rules/a.b|K/organizations/1/users/%20/clusters_detail", "user_id"),
        ("clusters/rules/z-/error_key/K/organizations/x/disabled", "param 'org_id'"),
        ("rules/z-/error_key/K/organizations/x/", "param 'org_id'"),
        ("rules/z/organizations/x/rating", "param 'org_id'"),
        ("clusters/y/rules/z-/error_key/K/users/%20/get_vote", "param 'cluster'"),
        (f"clusters/{CLUSTER}/rules/z-/error_key/K/users/%20/get_vote", "param 'rule_id'"),
        (f"clusters/{CLUSTER}/rules/z/error_key/K/users/%20/get_vote", "user_id"),
    ],
)
def test_the_first_broken_parameter_gives_the_answer(api: ApiUnderTest, path: str, named: str) -> None:
    assert named in _refused(api, path)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("recommendations/organizations/x/users/%20/list", "user_id"),
        ("recommendations/organizations/x/users/u/list", "param 'org_id'"),
        ("clusters/organizations/x/users/%20/recommendations", "user_id"),
        ("clusters/organizations/x/users/u/recommendations", "param 'org_id'"),
        ("organizations/x/clusters/reports", "param 'org_id'"),
        ("rules/organizations/x/disabled_for_clusters", "param 'org_id'"),
    ],
)
def test_parameters_are_checked_before_the_body(api: ApiUnderTest, path: str, named: str) -> None:
    answer = api.post(path, "{")
    assert answer.status_code == 400
    assert named in answer.json["status"]
