"""Reads the rows behind an answer again and again, with psycopg2 alone: the limit that the API is measured against."""

import time

import click
import psycopg2

QUERIES = {
    "report": """
        SELECT report.last_checked_at, report.gathered_at, rule_hit.rule_fqdn, rule_hit.error_key,
            rule_hit.template_data, rule_hit.created_at
        FROM report LEFT JOIN rule_hit ON rule_hit.cluster_id = report.cluster AND rule_hit.org_id = report.org_id
        WHERE report.org_id = %(org_id)s AND report.cluster = %(cluster)s
    """,
    "report/info": """
        SELECT report.last_checked_at, report.reported_at, (
            SELECT count(*) FROM rule_hit
            WHERE rule_hit.cluster_id = report.cluster AND rule_hit.org_id = report.org_id
        )
        FROM report WHERE report.org_id = %(org_id)s AND report.cluster = %(cluster)s
    """,
    "clusters": "SELECT cluster FROM report WHERE org_id = %(org_id)s ORDER BY cluster",
}


@click.command()
@click.argument("url")
@click.argument("query", type=click.Choice(list(QUERIES)))
@click.argument("org_id", type=int)
@click.argument("cluster")
@click.option("--seconds", default=2.0, show_default=True)
def main(url: str, query: str, org_id: int, cluster: str, seconds: float) -> None:
    """Print how many times a second the rows of QUERY were read."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    began = time.perf_counter()
    reads = 0
    with connection.cursor() as cursor:
        while (elapsed := time.perf_counter() - began) < seconds:
            cursor.execute(QUERIES[query], {"org_id": org_id, "cluster": cluster})
            cursor.fetchall()
            reads += 1
    connection.close()
    click.echo(reads / elapsed)


if __name__ == "__main__":
    main()
