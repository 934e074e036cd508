"""The file that Clowder gives to a process, in its real form: much more than we read."""

import json
from pathlib import Path
from typing import Any

CLOWDER_TOPIC, CLOWDER_DEAD_LETTERS = "stage-results-4f1c", "stage-rejected-4f1c"
PASSWORD = "p@ss/w:rd?&#%20 é"
SASL_PASSWORD = "sasl:p@ss"


def configuration(certificate: str = "") -> dict[str, Any]:
    """Return a configuration; with a certificate, database and brokers speak TLS and are checked against it."""
    return {
        "BOPURL": "http://ephem.bop.svc:8090",
        "database": {
            "adminPassword": "admin-secret",
            "adminUsername": "postgres",
            "hostname": "aggregator-db.stage.svc",
            "name": "aggregator",
            "password": PASSWORD,
            "port": 5432,
            "sslMode": "verify-full" if certificate else "prefer",
            "username": "aggregator_writer",
            **({"rdsCa": certificate} if certificate else {}),
        },
        "endpoints": [
            {
                "apiPath": "/api/content-service/",
                "apiPaths": ["/api/content-service/"],
                "app": "content-service",
                "hostname": "content-service.stage.svc",
                "name": "service",
                "port": 8000,
                "tlsPort": 0,
            }
        ],
        "featureFlags": {"clientAccessToken": "t", "hostname": "unleash.svc", "port": 4242, "scheme": "http"},
        "hashCache": "1b2a",
        "hostname": "stage.example.org",
        "inMemoryDb": {"hostname": "redis.svc", "port": 6379},
        "kafka": {
            "brokers": [_broker(number, certificate) for number in range(2)],
            "topics": [
                {"name": CLOWDER_TOPIC, "requestedName": "ccx.ocp.results", "consumerGroupName": "x"},
                {"name": CLOWDER_DEAD_LETTERS, "requestedName": "ccx.ocp.results.rejected"},
            ],
        },
        "logging": {
            "cloudwatch": {"accessKeyId": "", "logGroup": "", "region": "", "secretAccessKey": ""},
            "type": "null",
        },
        "metadata": {"deployments": [{"image": "q/i:1", "name": "consumer"}], "envName": "stage", "name": "aggregator"},
        "metricsPath": "/metrics",
        "metricsPort": 9000,
        "objectStore": {"hostname": "minio", "port": 9000, "tls": False, "buckets": []},
        "privateEndpoints": [],
        "privatePort": 10000,
        "publicPort": 8000,
        "webPort": 8000,
    }


def _broker(number: int, certificate: str) -> dict[str, Any]:
    plain: dict[str, Any] = {"hostname": f"kafka-{number}.stage.svc", "port": 9092 + number}
    if not certificate:
        return plain
    sasl = {"password": SASL_PASSWORD, "saslMechanism": "SCRAM-SHA-512", "username": "aggregator"}
    return {
        **plain,
        "authtype": "sasl",
        "cacert": certificate,
        "sasl": {**sasl, "securityProtocol": "SASL_SSL"},
        "securityProtocol": "SASL_SSL",
    }


def write_configuration(folder: Path, document: Any) -> Path:
    """Write a configuration where `ACG_CONFIG` can name it."""
    file = folder / "cdappconfig.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return file
