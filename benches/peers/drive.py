"""The queue workload for the peers from PyPI: the same steps and checks as src/queue/drive.rs, on threads.

A peer is a class with `open(dir, case)` and, per worker, `send(worker, bodies)`, `receive(worker, max)`,
`delete(worker, receipts)`, and then `left()` and `settings()`. The result of the round is printed as one JSON object.
"""

import argparse
import json
import random
import threading
import time

NUMBER = 20
STALLED_AFTER = 30.0
EMPTY_PAUSE = 0.0002
SYNCHRONOUS = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}


def settings(journal, synchronous):
    return f"journal_mode={str(journal).upper()}, synchronous={SYNCHRONOUS.get(synchronous, synchronous)}"


def body(number, length):
    return (f"{number:0{NUMBER}d}" + random.Random(number).randbytes(length // 2).hex())[: max(length, NUMBER)]


class Ledger:
    def __init__(self, case):
        self.bodies = [body(n, case.body) for n in range(case.messages)]
        self.seen = [0] * case.messages
        self.arrived = 0
        self.duplicates = 0
        self.lock = threading.Lock()
        self.progress = time.monotonic()

    def check(self, text):
        number = int(text[:NUMBER])
        if self.bodies[number] != text:
            raise ValueError(f"message {number} arrived with another body than it was sent with")
        with self.lock:
            self.seen[number] += 1
            if self.seen[number] == 1:
                self.arrived += 1
                self.progress = time.monotonic()
            else:
                self.duplicates += 1

    def done(self):
        return self.arrived >= len(self.bodies)


def produce(peer, ledger, case, worker):
    for start in range(worker * case.batch, case.messages, case.batch * case.workers):
        peer.send(worker, ledger.bodies[start : start + case.batch])


def consume(peer, ledger, case, worker):
    while not ledger.done():
        messages = peer.receive(worker, case.batch)
        if not messages:
            if time.monotonic() - ledger.progress > STALLED_AFTER:
                raise TimeoutError(f"{ledger.arrived} of {case.messages} messages arrived, then none")
            time.sleep(EMPTY_PAUSE)
            continue
        for _, text in messages:
            ledger.check(text)
        peer.delete(worker, [receipt for receipt, _ in messages])


def on_threads(work, peer, ledger, case):
    barrier = threading.Barrier(case.workers + 1)
    failures = []

    def run(worker):
        barrier.wait()
        try:
            work(peer, ledger, case, worker)
        except Exception as failure:  # handed to the main thread, which reports it
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(worker,)) for worker in range(case.workers)]
    for thread in threads:
        thread.start()
    barrier.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return time.perf_counter() - started


def main(peer):
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--sync", choices=["full", "normal"], required=True)
    for name in ("workers", "batch", "body", "messages"):
        parser.add_argument(f"--{name}", type=int, required=True)
    case = parser.parse_args()
    ledger = Ledger(case)
    peer.open(case.dir, case)
    send = on_threads(produce, peer, ledger, case)
    ledger.progress = time.monotonic()
    drain = on_threads(consume, peer, ledger, case)
    print(
        json.dumps(
            {
                "send_seconds": send,
                "drain_seconds": drain,
                "delivered": ledger.arrived,
                "duplicates": ledger.duplicates,
                "left": peer.left(),
                "settings": peer.settings(),
            }
        )
    )
