"""Makes messages shaped like real ones: 6 kB of JSON and 7 hits on average, text that compresses well.

Everything follows from the seed, so that a test, a benchmark or the demo sees the same fleet again.
"""

import json
import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

_NAMESPACE = uuid.UUID("6f6f2b5a-8d0e-5c7e-9c57-2f4a3d3a9b11")

_RULES = (
    ("nodes_requirements_check", "NODES_MINIMUM_REQUIREMENTS_NOT_MET"),
    ("nodes_kubelet_version_check", "NODE_KUBELET_VERSION"),
    ("master_defined_as_machinesets", "MASTER_DEFINED_AS_MACHINESETS"),
    ("image_registry_pv_not_bound", "IMAGE_REGISTRY_PV_NOT_BOUND"),
    ("image_registry_multiple_storage_types", "IMAGE_REGISTRY_MULTIPLE_STORAGE_TYPES"),
    ("cluster_wide_proxy_auth_check", "AUTH_OPERATOR_PROXY_ERROR"),
    ("samples_op_failed_image_import_check", "SAMPLES_FAILED_IMAGE_IMPORT_ERR"),
    ("container_max_root_partition_size", "CONTAINER_ROOT_PARTITION_SIZE"),
    ("control_plane_replicas", "CONTROL_PLANE_NODE_REPLICAS"),
    ("empty_prometheus_db_volume", "PROMETHEUS_DB_VOLUME_IS_EMPTY"),
    ("etcd_backup_missing", "ETCD_BACKUP_NOT_CONFIGURED"),
    ("ingress_wildcard_certificate", "INGRESS_DEFAULT_CERTIFICATE"),
    ("kube_apiserver_slow_requests", "APISERVER_SLOW_REQUESTS"),
    ("machine_pools_degraded", "MACHINE_CONFIG_POOL_DEGRADED"),
    ("operator_upgrade_blocked", "CLUSTER_OPERATOR_NOT_UPGRADEABLE"),
)
_VERSIONS = ("4.14.31", "4.15.12", "4.16.3", "4.16.18", "4.17.2")
_SKIPPED = ("ocs_check", "vsphere_upi_machine", "bug_rules.aws_ebs")


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster of the fleet."""

    org_id: int
    cluster_id: str
    version: str
    rules: Sequence[tuple[str, str]]


class Fleet:
    """Clusters of several organizations, and the messages about them."""

    def __init__(self, seed: int, organizations: int, clusters: int) -> None:
        """Make `clusters` clusters, spread over organizations 1 to `organizations`."""
        self._random = random.Random(seed)
        self.clusters = [self._make_cluster(seed, number, organizations) for number in range(clusters)]

    def messages(self, count: int, first_checked_at: datetime) -> Iterator[bytes]:
        """Yield messages of all clusters in turn, a second apart; from the second round on, newer ones."""
        for number in range(count):
            cluster = self.clusters[number % len(self.clusters)]
            yield self.message(cluster, first_checked_at + timedelta(seconds=number))

    def message(self, cluster: Cluster, checked_at: datetime) -> bytes:
        """Return the payload of one message; `checked_at` is in UTC, without a zone."""
        report = {
            "system": {"metadata": {}, "hostname": None},
            "reports": [self._hit(component, key) for component, key in cluster.rules],
            "fingerprints": [],
            "skips": [_skip(name) for name in _SKIPPED],
            "info": [_version_info(cluster.version)],
            "analysis_metadata": {"start": f"{checked_at.isoformat()}+00:00", "execution_context": "ccx"},
        }
        message = {
            "OrgID": cluster.org_id,
            "AccountNumber": 1_000_000 + cluster.org_id,
            "ClusterName": cluster.cluster_id,
            "Report": report,
            "LastChecked": f"{checked_at.isoformat()}Z",
            "Version": 2,
            "RequestId": uuid.UUID(int=self._random.getrandbits(128), version=4).hex,
            "Metadata": {"gathering_time": f"{(checked_at - timedelta(minutes=2)).isoformat()}Z"},
        }
        return json.dumps(message).encode()

    def _make_cluster(self, seed: int, number: int, organizations: int) -> Cluster:
        hits = self._random.randint(0, len(_RULES) - 1)
        return Cluster(
            org_id=number % organizations + 1,
            cluster_id=str(uuid.uuid5(_NAMESPACE, f"{seed}-{number}")),
            version=self._random.choice(_VERSIONS),
            rules=self._random.sample(_RULES, hits),
        )

    def _hit(self, name: str, key: str) -> dict[str, object]:
        nodes = [
            {"name": f"worker-{number}", "role": "worker", "memory": self._random.randint(4, 64) / 2, "memory_req": 8}
            for number in range(self._random.randint(1, 2))
        ]
        return {
            "rule_id": f"{name}|{key}",
            "component": f"ccx_rules_ocp.external.rules.{name}.report",
            "type": "rule",
            "key": key,
            "details": {
                "type": "rule",
                "error_key": key,
                "nodes": nodes,
                "condition": {"type": "Degraded", "status": True, "reason": "RouteHealth", "message": f"{name} failed"},
                "link": f"https://docs.example.org/{name}?a=1&b=2",
            },
            "tags": ["openshift", "service_availability"],
            "links": {"kcs": [f"https://kb.example.org/{name}"], "docs": []},
        }


def _skip(name: str) -> dict[str, str]:
    return {
        "rule_fqdn": f"ccx_rules_ocp.external.rules.{name}.report",
        "reason": "MISSING_REQUIREMENTS",
        "details": "All: ['ccx_ocp_core.models.cluster_version.ClusterVersion'] Any: ",
        "type": "skip",
    }


def _version_info(version: str) -> dict[str, object]:
    return {
        "info_id": "version_info|CLUSTER_VERSION_INFO",
        "component": "ccx_rules_ocp.external.rules.version_info.report",
        "type": "info",
        "key": "CLUSTER_VERSION_INFO",
        "details": {"version": version},
        "tags": [],
        "links": {},
    }
