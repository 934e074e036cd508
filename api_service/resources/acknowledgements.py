"""Rules that were switched off for a whole organization (`docs/rest.md`, section 4.14)."""

import msgspec

from api_service import queries
from api_service.database import Reader
from api_service.endpoints import Access, Endpoint, Tag
from api_service.errors import not_found
from api_service.fields import Component, ErrorKey, FreeText, OrganizationID
from api_service.parameters import ERROR_KEY, ORG_ID, RULE_ID, Rule
from api_service.times import TimeObject, time_object


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that is switched off for an organization; `user_id` is always empty."""

    org_id: OrganizationID
    user_id: str = ""
    rule_id: Component
    error_key: ErrorKey
    justification: FreeText
    created_at: TimeObject
    updated_at: TimeObject


class AcknowledgementsAnswer(msgspec.Struct, frozen=True):
    """All rules that are switched off for an organization, in the order of rule and error key."""

    disabled_rules: list[Acknowledgement] = msgspec.field(name="disabledRules")
    status: str = "ok"


class Acknowledgements:
    """All rules that are switched off for an organization."""

    endpoint = Endpoint(
        "disabled_system_wide",
        "GET",
        "rules/organizations/{org_id}/disabled_system_wide",
        "Rules that are switched off for an organization",
        Tag.ACKNOWLEDGEMENTS,
        Access.ORGANIZATION_OF_PATH,
        AcknowledgementsAnswer,
        parameters=(ORG_ID,),
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, org_id: int) -> AcknowledgementsAnswer:
        """List them in the order of rule and error key."""
        found = queries.acknowledgements(self._reader, org_id)
        ordered = sorted(found, key=lambda rule: (rule.rule_id, rule.error_key))
        return AcknowledgementsAnswer([_acknowledgement(org_id, rule) for rule in ordered])


class AcknowledgementAnswer(msgspec.Struct, frozen=True):
    """One rule that is switched off for an organization."""

    disabled_rule: Acknowledgement = msgspec.field(name="disabledRule")
    status: str = "ok"


class AcknowledgementOfRule:
    """Whether one rule is switched off for an organization."""

    endpoint = Endpoint(
        "ack",
        "GET",
        "rules/{rule_id}/error_key/{error_key}/organizations/{org_id}/",
        "How a rule is switched off for an organization",
        Tag.ACKNOWLEDGEMENTS,
        Access.ORGANIZATION_OF_PATH,
        AcknowledgementAnswer,
        parameters=(ORG_ID, RULE_ID, ERROR_KEY),
        misses=True,
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, org_id: int, rule_id: str, error_key: str) -> AcknowledgementAnswer:
        """Show how it is switched off."""
        found = queries.acknowledgement(self._reader, org_id, Rule(rule_id, error_key))
        if found is None:
            raise not_found("Rule was not disabled")
        return AcknowledgementAnswer(_acknowledgement(org_id, found))


def _acknowledgement(org_id: int, found: queries.Acknowledgement) -> Acknowledgement:
    return Acknowledgement(
        org_id=org_id,
        rule_id=found.rule_id,
        error_key=found.error_key,
        justification=found.justification or "",
        created_at=time_object(found.created_at),
        updated_at=time_object(found.updated_at),
    )
