"""Random faults for some minutes: `python -m tests.soak --minutes 10 --seed 7`, or `make soak`.

Each round has a topic and a database of its own, lets two consumers go through several faults, some of them at the
same time, and compares every row and every dead letter in the end. A round's faults follow its seed, which it prints;
`--rounds 1 --seed N` does one again.
"""

import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from tests.support.deployment import Deployment
from tests.support.fault_run import FaultRun
from tests.support.faults import BROKER_FAULTS, CONSUMER_FAULTS, DATABASE_FAULTS, SERVER_OPTIONS, Parts
from tests.support.kafka import ApacheKafka
from tests.support.kafka_proxy import KafkaProxy, proxied_listener
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import Processes
from tests.support.waiting import last

FAULTS_A_ROUND = 8
LONGEST_FAULT = 6.0


@click.command()
@click.option("--minutes", default=10.0, show_default=True, help="Begin no round after so many minutes.")
@click.option("--seed", type=int, help="Of the first round; further ones count on from it.  [default: a random one]")
@click.option("--rounds", type=int, help="Do so many rounds, however long they take.")
def main(minutes: float, seed: int | None, rounds: int | None) -> None:
    """Let random faults happen and compare what is left."""
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    end = time.monotonic() + 60 * minutes
    totals: Counter[str] = Counter()
    with _parts() as parts:
        while totals["rounds"] < rounds if rounds else time.monotonic() < end:
            print(f"round {totals['rounds'] + 1}, seed {seed}", flush=True)
            totals.update(_round(parts, seed))
            seed += 1
    print("soak: " + ", ".join(f"{count:,} {name}" for name, count in totals.items()))


def _round(parts: Parts, seed: int) -> Counter[str]:
    """Go through one round and return what was compared."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aggregator-soak-")))
        processes = Processes(folder)
        stack.callback(processes.kill_all)
        deployment = Deployment(processes, parts.broker, stack.enter_context(parts.server.database()))
        deployment.migrate()
        settings = {"KAFKA__BOOTSTRAP_SERVERS": parts.proxy.bootstrap, "DATABASE__STATEMENT_TIMEOUT": "3"}
        run = FaultRun(deployment, seed, **settings)
        stack.callback(run.abandon)
        try:
            run.begin_load()
            run.start_two()
            for _ in range(FAULTS_A_ROUND):
                run.wait_for_stored(run.random.randrange(1, 200))
                _let_something_happen(run, parts)
            compared = run.finish()
        except AssertionError:
            _show(processes)
            raise
    counted = {name: getattr(compared, name) for name in ("messages", "rows", "errors", "letters")}
    return Counter({"rounds": 1, "faults": len(run.faults), **counted})


def _let_something_happen(run: FaultRun, parts: Parts) -> None:
    """Let one fault last for a while, or two of different parts at the same time."""
    choose = run.random.choice
    kinds = {
        "database": choose(list(DATABASE_FAULTS.values()))(run, parts.server),
        "broker": choose(list(BROKER_FAULTS.values()))(run, parts),
        "consumers": choose(list(CONSUMER_FAULTS.values()))(run),
    }
    chosen = run.random.sample(sorted(kinds), choose([1, 1, 2]))
    lasting = run.random.uniform(0, LONGEST_FAULT)
    with contextlib.ExitStack() as stack:
        for kind in chosen:
            stack.enter_context(kinds[kind])
        last(lasting)


@contextlib.contextmanager
def _parts() -> Iterator[Parts]:
    """Yield servers for all rounds."""
    with contextlib.ExitStack() as stack:
        server = PostgresqlServer(SERVER_OPTIONS)
        stack.callback(server.close)
        server.start()
        listener = proxied_listener()
        broker = ApacheKafka(listeners=[listener])
        stack.callback(broker.close)
        broker.start()
        proxy = KafkaProxy(listener)
        stack.callback(proxy.close)
        yield Parts(server, broker, proxy)


def _show(processes: Processes) -> None:
    for process in processes.started:
        print(f"---- output of {process.name}\n{process.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
