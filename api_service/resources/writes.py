"""Paths on which another component writes; none of them offers a method here (`docs/rest.md`, section 5)."""

_RULE_OF_CLUSTER = "clusters/{cluster}/rules/{rule_id}/error_key/{error_key}/organizations/{org_id}"
_RULE = "rules/{rule_id}/error_key/{error_key}/organizations/{org_id}"

WRITE_PATHS = (
    "organizations/{organizations}",
    "clusters/{clusters}",
    f"{_RULE_OF_CLUSTER}/users/{{user_id}}/like",
    f"{_RULE_OF_CLUSTER}/users/{{user_id}}/dislike",
    f"{_RULE_OF_CLUSTER}/users/{{user_id}}/reset_vote",
    f"{_RULE_OF_CLUSTER}/users/{{user_id}}/disable_feedback",
    f"{_RULE_OF_CLUSTER}/disable",
    f"{_RULE_OF_CLUSTER}/enable",
    f"{_RULE}/disable",
    f"{_RULE}/enable",
    f"{_RULE}/update",
    "rules/organizations/{org_id}/rating",
)
