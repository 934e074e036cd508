"""Names of rules (`docs/messages.md`, section 4)."""

import pytest

from libaggregator.rules import rule_fqdn, rule_selector


@pytest.mark.parametrize(
    ("component", "fqdn"),
    [
        ("a.b.report", "a.b"),
        ("a.b", "a.b"),
        ("a.report.report", "a.report"),
        ("a.report.b", "a.report.b"),
        ("a.breport", "a.breport"),
        ("a.REPORT", "a.REPORT"),
    ],
)
def test_the_rule_fqdn_is_the_component_without_one_trailing_report(component: str, fqdn: str) -> None:
    assert rule_fqdn(component) == fqdn


def test_the_rule_selector_joins_rule_fqdn_and_error_key() -> None:
    assert rule_selector("a.b", "K") == "a.b|K"
