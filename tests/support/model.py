"""What the tables must hold, written as simply as the rules: one message after another, no SQL.

The rules are those of `docs/messages.md`, section 6. It shares no code with the product but the decoded message.
"""

from datetime import datetime
from typing import Any

from libaggregator.messages import Message


class Model:
    """The tables that messages change, as dictionaries from the key of a row to its other values."""

    def __init__(self) -> None:
        self.report: dict[str, dict[str, Any]] = {}
        self.rule_hit: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.recommendation: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.report_info: dict[str, dict[str, Any]] = {}
        self.choices: dict[str, str] = {}

    def apply(self, message: Message, now: datetime) -> bool:
        """Store one message at an instant; return whether it counted."""
        stored = self.report.get(message.cluster)
        if stored and stored["last_checked_at"] and stored["last_checked_at"] >= message.last_checked_at:
            return False
        second = now.replace(microsecond=0)
        moved = stored is not None and stored["org_id"] != message.org_id
        self.report[message.cluster] = {
            "org_id": message.org_id,
            "report": message.report,
            "reported_at": now,
            "last_checked_at": message.last_checked_at,
            "gathered_at": message.gathered_at,
            "kafka_offset": 0,
        }
        old_hits = self._take(self.rule_hit, message.cluster)
        for hit in message.hits:
            old = old_hits.get((message.cluster, hit.component, hit.error_key))
            self.rule_hit[message.cluster, hit.component, hit.error_key] = {
                "org_id": message.org_id,
                "template_data": hit.details,
                "created_at": (old and old["created_at"]) or second,
            }
        old_recommendations = self._take(self.recommendation, message.cluster)
        for hit in message.hits:
            rule = hit.component.removesuffix(".report")
            old = old_recommendations.get((message.cluster, rule, hit.error_key))
            self.recommendation[message.cluster, rule, hit.error_key] = {
                "org_id": message.org_id,
                "rule_id": f"{rule}|{hit.error_key}",
                "created_at": second,
                "impacted_since": (old and old["impacted_since"]) or second,
            }
        if message.cluster_version:
            self.report_info[message.cluster] = {"version_info": message.cluster_version}
        if moved and message.cluster in self.choices:
            self.choices[message.cluster] = str(message.org_id)
        if message.cluster in self.report_info and (moved or message.cluster_version):
            self.report_info[message.cluster]["org_id"] = message.org_id
        return True

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return the rows as `read_tables` does, for the tables that messages change."""
        rows = {
            "report": [
                (
                    row["org_id"],
                    cluster,
                    row["report"],
                    row["reported_at"],
                    row["last_checked_at"],
                    row["kafka_offset"],
                    row["gathered_at"],
                )
                for cluster, row in self.report.items()
            ],
            "rule_hit": [
                (row["org_id"], cluster, component, key, row["template_data"], row["created_at"])
                for (cluster, component, key), row in self.rule_hit.items()
            ],
            "recommendation": [
                (row["org_id"], cluster, rule, key, row["rule_id"], row["created_at"], row["impacted_since"])
                for (cluster, rule, key), row in self.recommendation.items()
            ],
            "report_info": [(row["org_id"], cluster, row["version_info"]) for cluster, row in self.report_info.items()],
        }
        return {table: sorted(found, key=repr) for table, found in rows.items()}

    @staticmethod
    def _take(table: dict[tuple[str, str, str], dict[str, Any]], cluster: str) -> dict[Any, dict[str, Any]]:
        taken = {key: row for key, row in table.items() if key[0] == cluster}
        for key in taken:
            del table[key]
        return taken
