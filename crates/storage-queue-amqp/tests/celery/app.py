# A Celery app as any shop has it: BROKER and QUEUE in the environment.
import os
import time

from celery import Celery

app = Celery("shop", broker=os.environ["BROKER"], backend="rpc://")
app.conf.update(
    task_default_queue=os.environ["QUEUE"],
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
)


@app.task(name="shop.add")
def add(x, y=0):
    return x + y


@app.task(name="shop.fail")
def fail(text):
    raise ValueError(text)


@app.task(name="shop.now")
def now():
    return time.time()
