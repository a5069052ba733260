# Sends tasks to a worker that is not Python's, and prints what comes of them as JSON.
import json
import os
import sys
import time
from datetime import datetime, timedelta, timezone

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from app import app


def outcome(result):
    try:
        return {"ok": result.get(timeout=30)}
    except Exception as error:
        return {"kind": type(error).__name__, "message": str(error), "traceback": str(result.traceback)}


started = time.time()
later = app.send_task("rust.now", countdown=2)
found = {
    "add": outcome(app.send_task("rust.add", args=[2], kwargs={"y": 3})),
    "fail": outcome(app.send_task("rust.fail", args=["out of order"])),
    "unknown": outcome(app.send_task("rust.nowhere")),
    "expired": outcome(app.send_task("rust.add", args=[1], expires=datetime.now(timezone.utc) - timedelta(seconds=5))),
    "panics": outcome(app.send_task("rust.panics")),
    "chain": outcome((app.signature("rust.add", args=[2], kwargs={"y": 3}) | app.signature("rust.add", kwargs={"y": 10}))()),
}
found["later"] = {"ok": outcome(later)["ok"] - started}
print(json.dumps(found))
