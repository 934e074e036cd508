"""Votes of users on rules (`docs/rest.md`, section 4.16)."""

import msgspec

from api_service import queries
from api_service.database import Reader
from api_service.endpoints import Access, Endpoint, Tag
from api_service.errors import item_not_found
from api_service.fields import Opinion
from api_service.parameters import CLUSTER, ERROR_KEY, RULE_ID, USER_ID, Rule


class VoteAnswer(msgspec.Struct, frozen=True):
    """The vote of the user."""

    vote: Opinion
    status: str = "ok"


class VoteOfUser:
    """What a user voted on a rule for a cluster."""

    endpoint = Endpoint(
        "vote",
        "GET",
        "clusters/{cluster}/rules/{rule_id}/error_key/{error_key}/users/{user_id}/get_vote",
        "What a user voted on a rule for a cluster; with an identity, for a cluster of its organization",
        Tag.OPINIONS,
        Access.OWN_ORGANIZATION,
        VoteAnswer,
        parameters=(CLUSTER, RULE_ID, ERROR_KEY, USER_ID),
        misses=True,
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def respond(self, cluster: str, rule_id: str, error_key: str, user_id: str, own_org_id: int | None) -> VoteAnswer:
        """Show the vote; a cluster of another organization is answered like one that does not exist."""
        found = queries.vote(self._reader, cluster, Rule(rule_id, error_key), user_id)
        if found is None or own_org_id not in (None, found.org_id):
            raise item_not_found(cluster)
        if found.user_vote is None:
            raise item_not_found(cluster, rule_id, user_id)
        return VoteAnswer(found.user_vote)
