"""The two Grafana dashboards: what is drawn, in which row, and why. `docs/generate.py` makes `deploy/grafana` from it.

To change a dashboard, change a panel here and run `make format`. In a query, `@` stands for the selectors of the
dashboard's variables.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

_SELECTORS = 'job=~"$job",instance=~"$instance"'
_DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_SCHEMA_VERSION = 39  # Grafana 10.4; later ones bring it up to date when they load it
_WIDTH, _HEIGHT, _STAT_HEIGHT = 24, 8, 4
_PANELS_A_LINE = 3

Json = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """What is drawn: queries by their legend, the unit of their values in Grafana's words, and what they tell.

    A `stat` shows the last value, `timeseries` all of them.
    """

    title: str
    unit: str
    description: str
    queries: dict[str, str]
    kind: Literal["timeseries", "stat"] = "timeseries"


@dataclass(frozen=True)
class Row:
    """A step on the way of a message or a request."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Dashboard:
    """A dashboard; `uid` is a part of its address and never changes, `found_by` has one series a process."""

    uid: str
    title: str
    description: str
    found_by: str
    rows: Sequence[Row]


def quantiles(metric: str, by: str = "", labels: str = "") -> dict[str, str]:
    """Return queries for the median, 95 and 99 % of a histogram; by a label the 95 % alone."""
    rate = f"rate({metric}_bucket{{{labels}@}}[$__rate_interval])"
    if by:
        return {f"{{{{{by}}}}}": f"histogram_quantile(0.95, sum by (le, {by}) ({rate}))"}
    return {f"{share:.0%}": f"histogram_quantile({share:g}, sum by (le) ({rate}))" for share in (0.5, 0.95, 0.99)}


def step_seconds(step: str) -> Panel:
    """Return the panel of a step of the consumer."""
    return Panel(
        f"Time of step {step}",
        "s",
        f"How long step {step} of a batch takes, waiting for outages included.",
        quantiles("aggregator_consumer_step_seconds", labels=f'step="{step}",'),
    )


def process_row(versions: str, *own: Panel) -> Row:
    """Return the row of what the operating system knows, after panels of the process's own."""
    return Row(
        "Process",
        (
            *own,
            Panel(
                "CPU",
                "percentunit",
                "Processor time by process: 100 % is one core.",
                {"{{instance}}": "rate(process_cpu_seconds_total{@}[$__rate_interval])"},
            ),
            Panel(
                "Memory",
                "bytes",
                "Resident memory by process. Of an API with several workers it is that of the process which watches"
                " them.",
                {"{{instance}}": "process_resident_memory_bytes{@}"},
            ),
            Panel(
                "Open files",
                "percentunit",
                "Share of the files that the process may have open.",
                {"{{instance}}": "process_open_fds{@} / process_max_fds{@}"},
            ),
            Panel(
                "Restarts",
                "none",
                "Times that a process with the same address was started anew, in the hour before.",
                {"{{instance}}": "changes(process_start_time_seconds{@}[1h])"},
            ),
            Panel(
                "Versions",
                "none",
                "Processes by version and commit: more than one for long means that an upgrade did not come to its"
                " end.",
                {"{{version}} {{commit}}": f"count by (version, commit) ({versions}{{@}})"},
            ),
        ),
    )


CONSUMER = Dashboard(
    "aggregator-consumer",
    "Aggregator: consumer",
    "The way of a message from its topic into the database.",
    "aggregator_consumer_build_info",
    (
        Row(
            "At a glance",
            (
                Panel(
                    "Consumers",
                    "none",
                    "Processes that answer.",
                    {"": "count(aggregator_consumer_build_info{@})"},
                    "stat",
                ),
                Panel(
                    "Handled",
                    "mps",
                    "Messages stored, skipped or rejected in a second.",
                    {"": "sum(rate(aggregator_consumer_messages_total{@}[$__rate_interval]))"},
                    "stat",
                ),
                Panel(
                    "Lag",
                    "short",
                    "Messages in the topic that are not handled yet.",
                    {"": "sum(aggregator_consumer_lag_messages{@})"},
                    "stat",
                ),
                Panel(
                    "Newest result",
                    "s",
                    "Seconds since the check of the newest result that any process has stored.",
                    {"": "min(aggregator_consumer_newest_result_age_seconds{@})"},
                    "stat",
                ),
                Panel(
                    "Last stored",
                    "s",
                    "Seconds since any process stored a message; since 1970 if none did since its start.",
                    {"": "time() - max(aggregator_consumer_last_stored_timestamp_seconds{@})"},
                    "stat",
                ),
                Panel(
                    "In need of somebody",
                    "none",
                    "Stalled partitions, halted processes, and parts that are away; 0 is well.",
                    {
                        "": "sum(aggregator_consumer_stalled_partitions{@}) + sum(aggregator_consumer_halted{@})"
                        " + count(aggregator_consumer_available{@}) - sum(aggregator_consumer_available{@})"
                    },
                    "stat",
                ),
            ),
        ),
        Row(
            "A message arrives",
            (
                Panel(
                    "Lag by partition",
                    "short",
                    "Offsets between what is handled and the end of the partition. If all rise, the consumers are too"
                    " slow; if one does, it may be stalled.",
                    {"{{topic}} {{partition}}": "sum by (topic, partition) (aggregator_consumer_lag_messages{@})"},
                ),
                Panel(
                    "Messages in a batch",
                    "short",
                    "How many messages a poll returned. Large batches mean that there is more to do than comes.",
                    quantiles("aggregator_consumer_batch_messages"),
                ),
                Panel(
                    "Stalled partitions",
                    "none",
                    "Partitions that stand still although there are records and nothing is away.",
                    {"{{instance}}": "aggregator_consumer_stalled_partitions{@}"},
                ),
                Panel(
                    "Source there",
                    "bool_yes_no",
                    "Whether the broker worked when it was last used.",
                    {"{{instance}}": 'aggregator_consumer_available{@,part="source"}'},
                ),
                Panel(
                    "Outages",
                    "none",
                    "Times that database or broker was away, in the hour before; each outage counts once.",
                    {
                        "{{part}} of {{instance}}": "sum by (part, instance)"
                        " (increase(aggregator_consumer_outages_total{@}[1h]))"
                    },
                ),
                Panel(
                    "Retries at the source",
                    "ops",
                    "Polls, dead letters and commits of offsets that had to be tried again.",
                    {
                        "{{step}}": "sum by (step) (rate(aggregator_consumer_retries_total"
                        '{@,step=~"poll|dead_letters|commit"}[$__rate_interval]))'
                    },
                ),
            ),
        ),
        Row(
            "It is decided on",
            (
                Panel(
                    "Messages by outcome",
                    "mps",
                    "What became of messages: stored, skipped or rejected.",
                    {"{{outcome}}": "sum by (outcome) (rate(aggregator_consumer_messages_total{@}[$__rate_interval]))"},
                ),
                Panel(
                    "Skipped by reason",
                    "mps",
                    "Usable messages that leave no row: stale, empty, or of an organization that is not stored.",
                    {
                        "{{reason}}": "sum by (reason) (rate(aggregator_consumer_messages_total"
                        '{@,outcome="skipped"}[$__rate_interval]))'
                    },
                ),
                Panel(
                    "Rejected by reason",
                    "mps",
                    "Messages that can't be used; docs/messages.md, section 5, has the reasons.",
                    {
                        "{{reason}}": "sum by (reason) (rate(aggregator_consumer_messages_total"
                        '{@,outcome="rejected"}[$__rate_interval]))'
                    },
                ),
                Panel(
                    "Rejected share",
                    "percentunit",
                    "Share of messages that can't be used.",
                    {
                        "rejected": 'sum(rate(aggregator_consumer_messages_total{@,outcome="rejected"}'
                        "[$__rate_interval])) / sum(rate(aggregator_consumer_messages_total{@}[$__rate_interval]))"
                    },
                ),
                step_seconds("sort"),
                Panel(
                    "Halted",
                    "bool_yes_no",
                    "Whether a process has stopped reading since too many messages were unusable.",
                    {"{{instance}}": "aggregator_consumer_halted{@}"},
                ),
            ),
        ),
        Row(
            "It is written",
            (
                step_seconds("write"),
                Panel(
                    "Work for one message",
                    "s",
                    "Mean time in which a message is sorted and written: its share of the time of its batch.",
                    {
                        "{{outcome}}": "sum by (outcome) (rate(aggregator_consumer_message_seconds_sum{@}"
                        "[$__rate_interval])) / sum by (outcome) (rate(aggregator_consumer_message_seconds_count{@}"
                        "[$__rate_interval]))"
                    },
                ),
                Panel(
                    "From the topic to the database",
                    "s",
                    "Time from a record's arrival in the topic to the commit of its result.",
                    quantiles("aggregator_consumer_end_to_end_seconds"),
                ),
                Panel(
                    "Age of results",
                    "s",
                    "Time from the check of a cluster to the commit of its result; also what producers take.",
                    quantiles("aggregator_consumer_result_age_seconds"),
                ),
                Panel(
                    "Database there",
                    "bool_yes_no",
                    "Whether the database worked when it was last used.",
                    {"{{instance}}": 'aggregator_consumer_available{@,part="database"}'},
                ),
                Panel(
                    "Retries and conflicts at the database",
                    "ops",
                    "Writes and pings that had to be done again, and how many of them because two consumers had the"
                    " same clusters.",
                    {
                        "{{step}}": "sum by (step) (rate(aggregator_consumer_retries_total"
                        '{@,step=~"write|ping"}[$__rate_interval]))',
                        "conflicts": "sum(rate(aggregator_consumer_conflicts_total{@}[$__rate_interval]))",
                    },
                ),
            ),
        ),
        Row(
            "Dead letters are sent",
            (
                Panel(
                    "Dead letters",
                    "mps",
                    "Rejected messages by what became of their letter. Those that are too large are in consumer_error"
                    " alone.",
                    {
                        "{{result}}": "sum by (result) (rate(aggregator_consumer_dead_letters_total{@}"
                        "[$__rate_interval]))"
                    },
                ),
                step_seconds("dead_letters"),
            ),
        ),
        Row(
            "Offsets are committed",
            (
                step_seconds("commit"),
                Panel(
                    "Handled and not committed",
                    "short",
                    "Offsets that come again after a crash: handled ones which the broker does not have yet. Two"
                    " batches are usual under load. Nothing between a rebalance and the next record.",
                    {
                        "{{topic}} {{partition}}": "aggregator_consumer_handled_offset{@}"
                        " - aggregator_consumer_committed_offset{@}"
                    },
                ),
                Panel(
                    "Time of a batch",
                    "s",
                    "How long a batch takes in all its steps.",
                    quantiles("aggregator_consumer_batch_seconds"),
                ),
            ),
        ),
        process_row(
            "aggregator_consumer_build_info",
            Panel(
                "Silence of the loop",
                "s",
                "Seconds since the loop came round; `/livez` fails if they are too many.",
                {"{{instance}}": "aggregator_consumer_loop_silent_seconds{@}"},
            ),
        ),
    ),
)

_REQUESTS = "rate(aggregator_api_requests_total{@}[$__rate_interval])"
_FAULTS = 'rate(aggregator_api_requests_total{@,status=~"5.."}[$__rate_interval])'

API = Dashboard(
    "aggregator-api",
    "Aggregator: API",
    "The way of a request to its answer.",
    "aggregator_api_build_info",
    (
        Row(
            "At a glance",
            (
                Panel(
                    "APIs",
                    "none",
                    "Processes that answer on their admin port.",
                    {"": "count(aggregator_api_build_info{@})"},
                    "stat",
                ),
                Panel("Requests", "reqps", "Answered requests in a second.", {"": f"sum({_REQUESTS})"}, "stat"),
                Panel(
                    "Answers 5xx",
                    "percentunit",
                    "Share of answers that tell of an outage or of a fault of the program.",
                    {"": f"sum({_FAULTS} or 0 * {_REQUESTS}) / sum({_REQUESTS})"},
                    "stat",
                ),
                Panel(
                    "Time to answer, 95 %",
                    "s",
                    "Time in which 95 of 100 requests are answered.",
                    {
                        "": "histogram_quantile(0.95, sum by (le)"
                        " (rate(aggregator_api_request_seconds_bucket{@}[$__rate_interval])))"
                    },
                    "stat",
                ),
            ),
        ),
        Row(
            "A request comes",
            (
                Panel(
                    "Requests by route",
                    "reqps",
                    "Answered requests by the template of their path.",
                    {"{{method}} {{route}}": f"sum by (method, route) ({_REQUESTS})"},
                ),
                Panel(
                    "Waiting requests",
                    "short",
                    "Requests that wait for a free thread. Above 0 for long means too few threads or processes, or a"
                    " slow database.",
                    {"{{instance}}": "aggregator_api_queued_requests{@}"},
                ),
                Panel(
                    "Workers that listen",
                    "none",
                    "Processes that take connections, by instance; 0 means that nobody is answered.",
                    {"{{instance}}": "aggregator_api_listening_workers{@}"},
                ),
            ),
        ),
        Row(
            "It asks the database",
            (
                Panel(
                    "Database there",
                    "bool_yes_no",
                    "Whether the database answered when it was last asked.",
                    {"{{instance}}": "aggregator_api_database_available{@}"},
                ),
                Panel(
                    "Connections",
                    "short",
                    "Open connections and those on which a statement is running. All in use for long: the database is"
                    " what takes the time.",
                    {
                        "open": "sum(aggregator_api_database_connections{@})",
                        "in use": "sum(aggregator_api_database_connections_in_use{@})",
                    },
                ),
                Panel(
                    "Failed statements",
                    "ops",
                    "Statements that failed: in an outage (503), or for a fault of the program (500).",
                    {"{{fault}}": "sum by (fault) (rate(aggregator_api_database_errors_total{@}[$__rate_interval]))"},
                ),
            ),
        ),
        Row(
            "It is answered",
            (
                Panel(
                    "Answers by status",
                    "reqps",
                    "Answers by their HTTP status.",
                    {"{{status}}": f"sum by (status) ({_REQUESTS})"},
                ),
                Panel(
                    "Time to answer",
                    "s",
                    "Time from the start of the work on a request to its answer.",
                    quantiles("aggregator_api_request_seconds"),
                ),
                Panel(
                    "Time to answer by route, 95 %",
                    "s",
                    "The same by the template of the path: which question is slow.",
                    quantiles("aggregator_api_request_seconds", by="route"),
                ),
            ),
        ),
        process_row(
            "aggregator_api_build_info",
            Panel(
                "Replaced workers",
                "none",
                "Workers that ended by themselves in the hour before; usually they were killed for their memory.",
                {"{{instance}}": "increase(aggregator_api_worker_restarts_total{@}[1h])"},
            ),
        ),
    ),
)

DASHBOARDS = {"consumer.json": CONSUMER, "api.json": API}
"""By the name of their file."""


def json_text(dashboard: Dashboard) -> str:
    """Return the text of a dashboard's file, always the same for the same dashboard."""
    return json.dumps(_dashboard_json(dashboard), indent=2) + "\n"


def _dashboard_json(dashboard: Dashboard) -> Json:
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["aggregator"],
        "schemaVersion": _SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "",
        "templating": {"list": _variables(dashboard.found_by)},
        "annotations": {"list": []},
        "links": [],
        "panels": [{"id": number, **panel} for number, panel in enumerate(_panels(dashboard.rows), 1)],
    }


def _variables(found_by: str) -> list[Json]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1},
        _query_variable("job", "Job", f"label_values({found_by}, job)"),
        _query_variable("instance", "Instance", f'label_values({found_by}{{job=~"$job"}}, instance)'),
    ]


def _query_variable(name: str, label: str, query: str) -> Json:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _DATA_SOURCE,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels(rows: Sequence[Row]) -> Iterator[Json]:
    """Yield rows and panels from top to bottom."""
    y = 0
    for row in rows:
        yield {"type": "row", "title": row.title, "collapsed": False, "gridPos": _place(0, y, _WIDTH, 1), "panels": []}
        y += 1
        has_stats = row.panels[0].kind == "stat"
        a_line, height = (len(row.panels), _STAT_HEIGHT) if has_stats else (_PANELS_A_LINE, _HEIGHT)
        width = _WIDTH // a_line
        for number, panel in enumerate(row.panels):
            line, column = divmod(number, a_line)
            yield _panel_json(panel, _place(column * width, y + line * height, width, height))
        y += height * -(-len(row.panels) // a_line)


def _place(x: int, y: int, width: int, height: int) -> Json:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel_json(panel: Panel, place: Json) -> Json:
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": _DATA_SOURCE,
            "expr": expression.replace("@", _SELECTORS),
            "legendFormat": legend,
        }
        for number, (legend, expression) in enumerate(panel.queries.items())
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATA_SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": _options(panel),
        "targets": targets,
    }


def _options(panel: Panel) -> Json:
    if panel.kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "none"}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
