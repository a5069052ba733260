"""What nats-py sees of our records and blobs, and does to them: `peer_stores.py records URL PREFIX TABLE`, `peer_stores.py blobs URL PREFIX`.
Prints one line of JSON."""

import asyncio
import hashlib
import json
import sys

import nats


async def records(js, prefix, table):
    tables = await js.key_value(f"{prefix}-tables")
    row = json.loads((await tables.get(table)).value)
    kv = await js.key_value(row["bucket"])
    keys = await kv.keys()
    entry = await kv.get(keys[0])
    record = json.loads(entry.value)
    found = {"schema": row["schema"], "keys": keys, "record": json.loads(entry.value)}
    record["version"] += 1
    record["fields"]["cents"] += 1
    await kv.update(keys[0], json.dumps(record).encode(), last=entry.revision)
    try:
        await kv.update(keys[0], b"{}", last=entry.revision)
        found["stale"] = "written"
    except Exception as error:
        found["stale"] = type(error).__name__
    return found


async def blobs(js, prefix):
    store = await js.object_store(prefix)
    infos = await store.list(ignore_deletes=True)
    info = infos[0]
    read = await store.get(info.name)
    digest = hashlib.sha256(read.data).digest()
    import base64

    found = {
        "names": [info.name for info in infos],
        "size": info.size,
        "chunks": info.chunks,
        "equal": info.digest == "SHA-256=" + base64.urlsafe_b64encode(digest).decode(),
        "type": (info.headers or {}).get("Content-Type"),
    }
    await store.put("theirs", bytes(n % 251 for n in range(300_000)))
    return found


async def main(what, url, *arguments):
    client = await nats.connect(url)
    found = await {"records": records, "blobs": blobs}[what](client.jetstream(), *arguments)
    await client.close()
    print(json.dumps(found))


asyncio.run(main(*sys.argv[1:]))
