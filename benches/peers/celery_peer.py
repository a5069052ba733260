"""Celery's send_task in a loop: tasks into a queue of RabbitMQ. Prints the seconds as one JSON object.

The first task is sent before the clock starts: it connects and makes the queue.
"""

import argparse
import json
import random
import time

from celery import Celery

NUMBER = 20


def body(number, length):
    return (f"{number:0{NUMBER}d}" + random.Random(number).randbytes(length // 2).hex())[: max(length, NUMBER)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--confirm", action="store_true")
    for name in ("body", "messages"):
        parser.add_argument(f"--{name}", type=int, required=True)
    case = parser.parse_args()
    bodies = [body(n, case.body) for n in range(case.messages + 1)]

    app = Celery("bench", broker=case.address)
    app.conf.update(
        broker_transport_options={"confirm_publish": case.confirm},
        broker_connection_retry=False,
        task_ignore_result=True,
    )
    # One producer for all: without it each call would take one from a pool.
    with app.producer_pool.acquire(block=True) as producer:
        app.send_task("bench.work", args=[bodies[0]], queue=case.queue, producer=producer)
        started = time.perf_counter()
        for text in bodies[1:]:
            app.send_task("bench.work", args=[text], queue=case.queue, producer=producer)
        seconds = time.perf_counter() - started
    app.close()
    print(json.dumps({"send_seconds": seconds}))


main()
