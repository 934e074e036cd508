"""The types of fields in answers, with what the OpenAPI document says of them (`docs/rest.md`, section 4).

The bounds are promises to clients; nothing is checked by them when an answer is written.
"""

from typing import Annotated

from msgspec import Meta, Raw

EXAMPLE_ORGANIZATION = 1
EXAMPLE_CLUSTER = "a9d4b240-49e2-56d0-a495-f2798c5e3b2f"
EXAMPLE_USER = "11"
EXAMPLE_COMPONENT = "ccx_rules_ocp.external.rules.nodes_requirements_check.report"
EXAMPLE_ERROR_KEY = "NODES_MINIMUM_REQUIREMENTS_NOT_MET"
EXAMPLE_SELECTOR = f"{EXAMPLE_COMPONENT.removesuffix('.report')}|{EXAMPLE_ERROR_KEY}"

_TO_THE_SECOND = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}"
_TO_THE_MICROSECOND = rf"{_TO_THE_SECOND}(\.[0-9]{{0,5}}[1-9])?"

OrganizationID = Annotated[int, Meta(description="An organization", examples=[EXAMPLE_ORGANIZATION])]
ClusterID = Annotated[str, Meta(description="A cluster: a UUID in lower case with dashes", examples=[EXAMPLE_CLUSTER])]
Component = Annotated[
    str, Meta(description="The component of a rule, usually with `.report`", examples=[EXAMPLE_COMPONENT])
]
ErrorKey = Annotated[str, Meta(description="The error key of a rule", examples=[EXAMPLE_ERROR_KEY])]
RuleSelector = Annotated[
    str,
    Meta(description="A rule: its component without `.report`, a `|`, its error key", examples=[EXAMPLE_SELECTOR]),
]
HitCount = Annotated[int, Meta(description="The number of rule hits, -1 if there are none", examples=[3], ge=-1)]
Opinion = Annotated[int, Meta(description="For (1), against (-1), or neither (0)", examples=[1], ge=-1, le=1)]
StoredJSON = Annotated[
    Raw,
    Meta(
        description="Any JSON: what the rule engine reported, byte for byte as it came",
        examples=[{"error_key": EXAMPLE_ERROR_KEY, "nodes": [{"name": "worker-1", "memory": 7.5}]}],
    ),
]
FreeText = Annotated[str, Meta(description="What a user wrote, empty if nothing", examples=["known, ticket OPS-1"])]
ClusterName = Annotated[str, Meta(description="Always empty: names of clusters are not stored")]
ClusterVersion = Annotated[
    str, Meta(description="The version of the cluster's platform, empty if unknown", examples=["4.16.3"])
]
Seconds = Annotated[
    str,
    Meta(
        description="A time in UTC, to the second; empty if there is none",
        examples=["2026-05-04T07:59:59Z"],
        pattern=f"^({_TO_THE_SECOND}Z)?$",
    ),
]
Exact = Annotated[
    str,
    Meta(
        description="A time in UTC with up to six digits of fraction; empty if there is none",
        examples=["2026-05-04T11:30:15.25Z"],
        pattern=f"^({_TO_THE_MICROSECOND}Z)?$",
    ),
]
ExactAlways = Annotated[
    str,
    Meta(
        description="A time in UTC with up to six digits of fraction; that of the year 1 if there is none",
        examples=["2026-05-04T11:30:15.25Z"],
        pattern=f"^{_TO_THE_MICROSECOND}Z$",
    ),
]
