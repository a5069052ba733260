# Sends tasks to a worker that is not Python's, and prints what comes of them as JSON.
import json
import os
import sys
import time
from datetime import datetime, timedelta, timezone

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from app import app
from celery import chord


def outcome(result):
    try:
        return {"ok": result.get(timeout=30)}
    except Exception as error:
        return {"kind": type(error).__name__, "message": str(error), "traceback": str(result.traceback)}


def signature(name, *args, **kwargs):
    return app.signature(name, args=args, kwargs=kwargs)


started = time.time()
later = app.send_task("rust.now", countdown=2)
found = {
    "add": outcome(app.send_task("rust.add", args=[2], kwargs={"y": 3})),
    "fail": outcome(app.send_task("rust.fail", args=["out of order"])),
    "unknown": outcome(app.send_task("rust.nowhere")),
    "expired": outcome(app.send_task("rust.add", args=[1], expires=datetime.now(timezone.utc) - timedelta(seconds=5))),
    "panics": outcome(app.send_task("rust.panics")),
    "chain": outcome((signature("rust.add", 2, y=3) | signature("rust.add", y=10) | signature("rust.add", y=100))()),
    "immutable": outcome((signature("rust.add", 2, y=3) | app.signature("rust.add", args=[7], immutable=True))()),
}
# Callbacks, where Python gives them.
linked, failed = (signature("rust.add", y=n).set(task_id=f"{os.environ['QUEUE']}-{n}") for n in (20, 30))
app.send_task("rust.add", args=[1], link=linked).get(timeout=30)
found["link"] = outcome(app.AsyncResult(linked.id)) if "redis" in os.environ.get("BACKEND", "") else None
found["errback"] = outcome(app.send_task("rust.fail", args=["again"], link_error=app.signature("rust.seen")))
found["chord"] = outcome(app.send_task("rust.add", args=[1], chord=signature("rust.add")))
ignored = app.send_task("rust.seen", args=["ignored"], ignore_result=True)
found["later"] = {"ok": outcome(later)["ok"] - started}
# Not for everybody: it is set aside.
app.send_task("rust.add", args=[1], compression="zlib")
print(json.dumps(found))
