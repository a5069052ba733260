# A Celery app as any shop has it: BROKER, BACKEND and QUEUE in the environment.
import os
import time

from celery import Celery

app = Celery("shop", broker=os.environ["BROKER"], backend=os.environ.get("BACKEND", "rpc://"))
app.conf.update(
    task_default_queue=os.environ["QUEUE"],
    task_track_started=True,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
)


class OutOfStock(Exception):
    pass


@app.task(name="shop.add")
def add(x, y=0):
    return x + y


@app.task(name="shop.fail")
def fail(text):
    raise ValueError(text)


@app.task(name="shop.sell")
def sell(what):
    raise OutOfStock(f"no more {what}")


@app.task(name="shop.now")
def now():
    return time.time()


@app.task(name="shop.sleep")
def sleep(seconds):
    time.sleep(seconds)
    return "rested"


@app.task(name="shop.headers", bind=True)
def headers(self):
    return self.request.tenant
