"""procrastinate: batches of deferred jobs, then workers that run until nothing is left. It is async: the steps and checks of drive.py on one loop."""

import argparse
import asyncio
import json
import logging
import time

import procrastinate
import psycopg
from drive import Ledger


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--queue", required=True)
    for name in ("workers", "batch", "body", "messages"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args()


def scalar(address, query):
    with psycopg.connect(address, autocommit=True) as connection:
        return connection.execute(query).fetchone()[0]


def prepare(case):
    """A schema of its own: procrastinate's tables have fixed names."""
    schema = case.queue.replace("-", "_")
    with psycopg.connect(case.address, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    return schema


async def main():
    case = arguments()
    schema = prepare(case)
    ledger = Ledger(case)
    connector = procrastinate.PsycopgConnector(
        conninfo=case.address, kwargs={"options": f"-c search_path={schema}"}, min_size=case.workers, max_size=case.workers + 4
    )
    app = procrastinate.App(connector=connector)
    # A line for each job at level INFO.
    logging.getLogger("procrastinate").setLevel(logging.WARNING)

    @app.task(queue="work", name="work")
    async def work(text):
        ledger.check(text)

    async with app.open_async():
        await app.schema_manager.apply_schema_async()

        async def produce(worker):
            for start in range(worker * case.batch, case.messages, case.batch * case.workers):
                texts = ledger.bodies[start : start + case.batch]
                await work.batch_defer_async(*({"text": text} for text in texts))

        started = time.perf_counter()
        await asyncio.gather(*(produce(worker) for worker in range(case.workers)))
        send = time.perf_counter() - started

        started = time.perf_counter()
        await app.run_worker_async(
            queues=["work"],
            wait=False,
            concurrency=case.workers,
            delete_jobs="always",
            listen_notify=False,
            install_signal_handlers=False,
        )
        drain = time.perf_counter() - started
    left = scalar(case.address, f"SELECT count(*) FROM {schema}.procrastinate_jobs")
    with psycopg.connect(case.address, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {schema} CASCADE")
    print(
        json.dumps(
            {
                "send_seconds": send,
                "drain_seconds": drain,
                "delivered": ledger.arrived,
                "duplicates": ledger.duplicates,
                "left": left,
                "settings": "",
            }
        )
    )


asyncio.run(main())
