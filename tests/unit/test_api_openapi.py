"""The OpenAPI document is valid, and says exactly what is served (`docs/rest.md`, section 4.1)."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import falcon.inspect
import openapi_spec_validator
import pytest
from falcon.testing import Result
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from api_service import bodies, parameters
from api_service.bodies import Body
from api_service.endpoints import Access
from api_service.errors import RefusedError
from api_service.fields import EXAMPLE_CLUSTER, EXAMPLE_COMPONENT, EXAMPLE_ERROR_KEY, EXAMPLE_SELECTOR, EXAMPLE_USER
from api_service.parameters import Parameter
from api_service.resources.service import OpenApi
from api_service.resources.writes import WRITE_PATHS
from tests.support.api import ApiUnderTest, identity
from tests.support.openapi import Document, Operation

pytestmark = pytest.mark.usefixtures("plain_logs")

REPOSITORY = Path(__file__).parents[2]


def _api(factory: pytest.TempPathFactory, auth: str) -> ApiUnderTest:
    return ApiUnderTest(factory.mktemp("api"), auth=auth)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> ApiUnderTest:
    """Return an API without data and without identities."""
    return _api(tmp_path_factory, "none")


@pytest.fixture(scope="module", params=["none", "xrh"])
def auth(request: pytest.FixtureRequest) -> str:
    """Return each way to authenticate in turn."""
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def empty_api(tmp_path_factory: pytest.TempPathFactory, auth: str) -> ApiUnderTest:
    """Return an API without data."""
    return _api(tmp_path_factory, auth)


@pytest.fixture(scope="module")
def api_in_outage(tmp_path_factory: pytest.TempPathFactory, auth: str) -> ApiUnderTest:
    """Return an API whose database file is gone."""
    api = _api(tmp_path_factory, auth)
    api.database.close()
    api.file.unlink()
    return api


@pytest.fixture(scope="module")
def filled_api(tmp_path_factory: pytest.TempPathFactory, auth: str) -> ApiUnderTest:
    """Return an API with a row for each example, and with rows in which all is missing that can be."""
    api = _api(tmp_path_factory, auth)
    rule = {"rule_id": EXAMPLE_COMPONENT, "error_key": EXAMPLE_ERROR_KEY}
    selector = {"rule_id": EXAMPLE_SELECTOR, "rule_fqdn": "any", "error_key": EXAMPLE_ERROR_KEY}
    time = "2026-05-04 11:30:15.25"
    api.insert("report", gathered_at=time)
    api.insert("report", cluster="no times", reported_at=None, last_checked_at=None, report="")
    api.insert("rule_hit", rule_fqdn=EXAMPLE_COMPONENT, error_key=EXAMPLE_ERROR_KEY, created_at=time)
    api.insert("rule_hit", template_data="no JSON", created_at=None)
    api.insert("recommendation", created_at=time, impacted_since=time, **selector)
    api.insert("recommendation", cluster_id="no times", **selector)
    api.insert("report_info")
    api.insert("cluster_rule_toggle", disabled_at=time, **rule)
    api.insert("cluster_rule_toggle", cluster_id="no times", **rule)
    api.insert("cluster_user_rule_disable_feedback", user_id=EXAMPLE_USER, **rule)
    api.insert("cluster_rule_user_feedback", user_id=EXAMPLE_USER, **rule)
    api.insert("rule_disable", justification="why", updated_at=time, **rule)
    api.insert("rule_disable", rule_id="no.time")
    api.insert("advisor_ratings", rating=-1, **selector)
    return api


@pytest.fixture(scope="module")
def document(empty_api: ApiUnderTest) -> Document:
    """Return the document that an API serves, with identities and without."""
    answer = empty_api.get("openapi.json")
    assert answer.content_type == "application/json"
    return Document(answer.json)


def _answer(
    api: ApiUnderTest, operation: Operation, path: str, body: bytes, headers: Mapping[str, str] | None = None
) -> Result:
    return api.ask(operation.method, path, body=body, headers=identity() if headers is None else headers)


def _example(api: ApiUnderTest, operation: Operation, headers: Mapping[str, str] | None = None) -> Result:
    return _answer(api, operation, operation.example, operation.example_body, headers)


# that it is a valid document


def test_it_is_valid(document: Document) -> None:
    assert document.content["openapi"].startswith("3.1.")
    openapi_spec_validator.validate(document.content)


def test_every_reference_leads_somewhere_and_no_component_is_unused(document: Document) -> None:
    components = {
        f"#/components/{kind}/{name}"
        for kind in ("schemas", "responses", "headers")
        for name in document.content["components"][kind]
    }
    assert set(re.findall(r"#/components/\w+/[\w-]+", json.dumps(document.content))) == components


def test_names_and_summaries_of_operations_are_unique(document: Document) -> None:
    for key in ("operationId", "summary"):
        texts = [operation.description[key] for operation in document.operations()]
        assert all(texts)
        assert len(texts) == len(set(texts))


def test_every_operation_has_one_tag_and_every_tag_is_described_and_used(document: Document) -> None:
    described = [tag["name"] for tag in document.content["tags"]]
    used = [tag for operation in document.operations() for tag in operation.description["tags"]]
    assert len(used) == len(list(document.operations()))
    assert set(used) == set(described)
    assert all(tag["description"] for tag in document.content["tags"])


def test_everything_that_is_described_has_words_for_people(document: Document) -> None:
    components = document.content["components"]
    described = [
        *components["schemas"].values(),
        *components["headers"].values(),
        *components["responses"].values(),
        *components.get("securitySchemes", {}).values(),
    ]
    for operation in document.operations():
        described += operation.parameters
        described += [operation.description["requestBody"]] if "requestBody" in operation.description else []
        described.append(operation.description["responses"]["200"])
    assert [part for part in described if not part["description"]] == []


# that paths and methods are the served ones


def _endpoints_of_the_contract() -> set[tuple[str, str]]:
    page = (REPOSITORY / "docs" / "rest.md").read_text(encoding="utf-8")
    section = page[page.index("## 4. Endpoints") : page.index("## 5. Paths for writes")]
    found = re.findall(r"\b(GET|POST) (?:`([^` ]+)`|the prefix itself)", section)
    return {(method, f"/{path}") for method, path in found}


def test_every_path_of_the_contract_is_in_it_and_nothing_else(document: Document) -> None:
    documented = {(operation.method, operation.path) for operation in document.operations()}
    assert documented == _endpoints_of_the_contract()


def test_every_served_path_is_documented_but_those_for_writes(empty_api: ApiUnderTest, document: Document) -> None:
    def shapes(paths: list[str]) -> list[str]:
        # parameters have other names in the router
        return sorted(re.sub(r"\{\w+\}", "{}", path).rstrip("/") for path in paths)

    routes = falcon.inspect.inspect_compiled_router(empty_api.app._router)
    # the page is for people, and shows the document
    documented = [*document.content["paths"], "/docs", *(f"/{path}" for path in WRITE_PATHS)]
    assert shapes([route.path for route in routes]) == shapes(
        [empty_api.settings.prefix.rstrip("/") + path for path in documented]
    )


def test_the_documented_method_of_a_path_is_the_one_that_is_served(empty_api: ApiUnderTest, document: Document) -> None:
    for path, item in document.content["paths"].items():
        (method,) = item
        allow = empty_api.ask("OPTIONS", path.removeprefix("/")).headers["Allow"]
        assert set(allow.split(", ")) == {method.upper(), "OPTIONS"}


def test_pages_are_described_where_they_are_served(document: Document) -> None:
    paged = {"/organizations/{organization}/clusters"}
    paged.add("/rules/{rule_selector}/organizations/{org_id}/users/{user_id}/clusters_detail")
    for path, item in document.content["paths"].items():
        (operation,) = item.values()
        query = [parameter for parameter in operation["parameters"] if parameter["in"] == "query"]
        assert [parameter["name"] for parameter in query] == (["limit", "after"] if path in paged else [])
        assert not any(parameter["required"] for parameter in query)
        for status in ("200", "304"):
            headers = operation["responses"].get(status, {}).get("headers", {})
            assert ("Link" in headers) is (path in paged)


def test_the_server_is_the_prefix(document: Document) -> None:
    assert document.content["servers"] == [{"url": "/api/insights-results-aggregator/v1"}]


def test_every_resource_takes_what_its_endpoint_gives(api: ApiUnderTest) -> None:
    for resource in api.resources:
        endpoint = resource.endpoint
        given = {parameter.argument for parameter in endpoint.parameters}
        given |= {parameter.argument for parameter in endpoint.query}
        given |= {"clusters"} if endpoint.body else set()
        given |= {"own_org_id"} if endpoint.access is Access.OWN_ORGANIZATION else set()
        assert set(inspect.signature(resource.respond).parameters) == given, endpoint.name


# that requests are as described


def test_the_parameters_of_a_path_are_described_in_their_order(document: Document) -> None:
    for operation in document.operations():
        assert [parameter["name"] for parameter in operation.parameters] == re.findall(r"\{(\w+)\}", operation.path)
        assert all(parameter["required"] for parameter in operation.parameters)


def test_examples_are_as_described(document: Document) -> None:
    described = [parameter for operation in document.operations() for parameter in operation.parameters]
    described += [
        operation.description["requestBody"]["content"]["application/json"]
        for operation in document.operations()
        if "requestBody" in operation.description
    ]
    for part in described:
        Draft202012Validator(part["schema"]).validate(part["example"])


def _takes(parameter: Parameter, text: str) -> bool:
    try:
        parameter.parse(text)
    except RefusedError:
        return False
    return True


def _pattern(schema: Mapping[str, Any]) -> str:
    # `$` is the very end in ECMA-262, where in Python a line feed may follow
    pattern: str = schema["pattern"]
    assert pattern.startswith("^")
    assert pattern.endswith("$")
    return pattern.removesuffix("$") + r"\Z"


SEGMENTS = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1)
WHITE_SPACE = [chr(code) for code in range(0x10000) if chr(code).isspace()]
TEXT_PARAMETERS = [
    parameters.CLUSTER,
    parameters.USER_ID,
    parameters.RULE_ID,
    parameters.RULE_WITH_KEY,
    parameters.ERROR_KEY,
    parameters.RULE_SELECTOR,
]


@pytest.mark.parametrize("parameter", TEXT_PARAMETERS, ids=lambda parameter: f"{parameter.name}-{parameter.argument}")
@given(data=st.data())
def test_a_parameter_is_taken_if_and_only_if_its_description_fits(parameter: Parameter, data: st.DataObject) -> None:
    pattern = _pattern(parameter.schema)
    fitting = st.from_regex(pattern)
    almost = st.builds(lambda text, end: text[:-1] + end, fitting, st.sampled_from([*WHITE_SPACE, "|", ".", "g", "-"]))
    text = data.draw(fitting | almost | SEGMENTS | st.sampled_from(WHITE_SPACE))
    assert bool(re.search(pattern, text)) is _takes(parameter, text)


def test_the_description_of_a_user_knows_what_white_space_is() -> None:
    pattern = _pattern(parameters.USER_ID.schema)
    characters = [chr(code) for code in range(0x10000) if chr(code) != "/"]
    assert [text for text in characters if bool(re.search(pattern, text)) is not _takes(parameters.USER_ID, text)] == []


@pytest.mark.parametrize("parameter", TEXT_PARAMETERS, ids=lambda parameter: f"{parameter.name}-{parameter.argument}")
@pytest.mark.parametrize("text", ["", "/", "a/b", "a.b/c|D"])
def test_no_description_fits_what_is_no_segment_of_a_path(parameter: Parameter, text: str) -> None:
    assert not re.search(_pattern(parameter.schema), text)


@given(st.integers() | st.integers(2**32 - 2, 2**32 + 1) | st.integers(-1, 2))
@pytest.mark.parametrize("parameter", [parameters.ORG_ID, parameters.ORGANIZATION], ids=lambda found: found.name)
def test_an_organization_is_taken_if_and_only_if_its_description_fits(parameter: Parameter, number: int) -> None:
    assert Draft202012Validator(parameter.schema).is_valid(number) is _takes(parameter, str(number))


CLUSTER_IDS = st.from_regex(_pattern(parameters.CLUSTER_SCHEMA))
ELEMENTS = st.text(st.characters(exclude_characters=",/\n", exclude_categories=["Cs"]))


@given(st.lists(CLUSTER_IDS | ELEMENTS, max_size=3).filter(lambda elements: elements != [""]))
@example([])
@example([EXAMPLE_CLUSTER, ""])
def test_a_list_of_clusters_is_taken_if_and_only_if_its_description_fits(elements: list[str]) -> None:
    is_valid = Draft202012Validator(parameters.CLUSTER_LIST.schema).is_valid(elements)
    assert is_valid is _takes(parameters.CLUSTER_LIST, ",".join(elements))


VALUES = st.none() | st.booleans() | st.integers() | ELEMENTS | st.lists(st.none() | st.integers() | ELEMENTS)
OBJECTS = st.fixed_dictionaries({}, optional={"clusters": st.lists(CLUSTER_IDS | ELEMENTS) | VALUES, "other": VALUES})


@pytest.mark.parametrize("body", [bodies.CLUSTER_ARRAY, bodies.CLUSTER_OBJECT, bodies.CLUSTER_FILTER])
@given(VALUES | st.lists(CLUSTER_IDS) | OBJECTS)
@example([])
@example(["x"])
@example([None])
@example({})
@example({"clusters": None})
@example({"clusters": ["x"]})
@example({"clusters": [1]})
@example({"clusters": [EXAMPLE_CLUSTER, f"urn:uuid:{EXAMPLE_CLUSTER}"], "other": 1})
def test_a_body_is_taken_if_and_only_if_its_description_fits(body: Body, value: Any) -> None:
    try:
        body.parse(json.dumps(value).encode())
        taken = True
    except RefusedError:
        taken = False
    assert Draft202012Validator(body.schema).is_valid(value) is taken


# that answers are as described


def _as_described(document: Document, operation: Operation, answer: Result) -> None:
    assert document.problems(operation, answer.status_code, answer.headers, answer.content) == [], operation.name


def test_an_answer_with_a_field_too_many_or_too_few_is_not_as_described(document: Document) -> None:
    (main,) = [operation for operation in document.operations() if operation.path == "/"]
    kept = {"ETag": '"x"', "Cache-Control": "private, no-cache"}
    headers = {"Content-Type": "application/json", "X-Request-Id": "x", **kept}
    assert document.problems(main, 200, headers, b'{"status": "ok"}') == []
    for body in (b'{"status": "ok", "more": 1}', b"{}", b'{"status": "no"}', b"[]"):
        assert len(document.problems(main, 200, headers, body)) == 1
    assert document.problems(main, 404, headers, b"{}") == ["status 404 is not described"]
    assert document.problems(main, 304, headers, b"") == []
    assert document.problems(main, 304, headers, b"{}") == ["a body is not described"]
    assert document.problems(main, 200, {"Content-Type": "text/html", **kept}, b"") == [
        "header X-Request-Id is missing",
        "content type text/html is not described",
    ]


def test_every_example_is_answered_as_described(filled_api: ApiUnderTest, document: Document) -> None:
    for operation in document.operations():
        answer = _example(filled_api, operation)
        assert answer.status_code == 200, operation.name
        _as_described(document, operation, answer)


def test_fields_are_left_out_only_where_the_contract_says_so(document: Document) -> None:
    schemas = document.content["components"]["schemas"]
    optional = {(name, field) for name, schema in schemas.items() for field in schema["properties"]}
    optional -= {(name, field) for name, schema in schemas.items() for field in schema["required"]}
    assert optional == {("Hit", "impacted"), ("ReportMeta", "gathered_at")}


def test_missing_values_are_described_too(filled_api: ApiUnderTest, document: Document) -> None:
    (report,) = [operation for operation in document.operations() if operation.description["operationId"] == "report"]
    path = "organizations/1/clusters/{cluster}/users/u/report"
    filled_api.insert("report", cluster="11111111-1111-1111-1111-111111111111", last_checked_at=None, gathered_at=None)
    answer = _answer(filled_api, report, path.format(cluster="1" * 32), b"")
    assert answer.json["report"]["meta"] == {"cluster_name": "", "count": -1, "last_checked_at": ""}
    _as_described(document, report, answer)


def test_described_statuses_are_those_that_occur(
    filled_api: ApiUnderTest,
    empty_api: ApiUnderTest,
    api_in_outage: ApiUnderTest,
    document: Document,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answers(operation: Operation) -> Iterator[Result]:
        yield _example(filled_api, operation)
        yield _example(filled_api, operation, headers={**identity("1"), "If-None-Match": "*"})
        yield _answer(filled_api, operation, operation.filled(dict.fromkeys(_names(operation), " ")), b"no JSON")
        yield _example(filled_api, operation, headers={})
        yield _example(filled_api, operation, headers=identity("2"))
        yield _example(empty_api, operation)
        yield _example(api_in_outage, operation)
        with monkeypatch.context() as broken:
            for resource in (OpenApi, *map(type, filled_api.resources)):
                broken.setattr(resource, "respond", _raise)
            yield _example(filled_api, operation)

    for operation in document.operations():
        occurred = list(answers(operation))
        assert {answer.status_code for answer in occurred} == operation.statuses, operation.name
        for answer in occurred:
            _as_described(document, operation, answer)


def _names(operation: Operation) -> list[str]:
    return [parameter["name"] for parameter in operation.parameters]


def _raise(*args: object, **kwargs: object) -> None:
    raise RuntimeError("a bug")


def test_identities_are_described_where_they_are_asked_for(auth: str, document: Document) -> None:
    asked_for = {operation.path for operation in document.operations() if "security" in operation.description}
    everywhere = set(document.content["paths"]) - {"/metrics", "/openapi.json"}
    assert asked_for == (everywhere if auth == "xrh" else set())
    assert ("securitySchemes" in document.content["components"]) is (auth == "xrh")


def test_a_path_with_an_organization_is_for_that_organization_alone(api: ApiUnderTest) -> None:
    for resource in api.resources:
        has_organization = bool(re.search(r"\{(org_id|organization)\}", resource.endpoint.path))
        for_that_alone = resource.endpoint.access is Access.ORGANIZATION_OF_PATH
        assert for_that_alone is has_organization, resource.endpoint.name


def test_answers_that_can_be_kept_are_described_with_their_headers_and_304(
    api: ApiUnderTest, document: Document
) -> None:
    kept = {"ETag", "Cache-Control"}
    for path, item in document.content["paths"].items():
        for method, operation in item.items():
            responses = operation["responses"]
            expected = kept if method == "get" and path != "/metrics" else set()
            assert set(responses["200"].get("headers", {})) & kept == expected
            assert ("304" in responses) is bool(expected)
            if expected:
                assert kept <= set(responses["304"]["headers"])
                assert "content" not in responses["304"]
    described = document.content["paths"]["/info"]["get"]["responses"]["200"]["headers"]["Cache-Control"]["schema"]
    assert described == {"const": api.get("info").headers["Cache-Control"]}
