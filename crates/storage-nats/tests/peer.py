"""What nats-py sees and does: `peer.py URL STREAM ROOT`. Prints one line of JSON."""

import asyncio
import json
import sys

import nats


async def main(url, stream, root):
    client = await nats.connect(url)
    js = client.jetstream()
    info = await js.stream_info(stream)
    consumers = {c.config.filter_subject: c for c in await js.consumers_info(stream)}
    found = {
        "retention": info.config.retention,
        "storage": info.config.storage,
        "discard": info.config.discard,
        "subjects": info.config.subjects,
        "messages": info.state.messages,
        "consumers": {f: [c.num_pending, c.num_ack_pending, c.config.ack_policy] for f, c in consumers.items()},
    }
    name = consumers[f"{root}.live.p0.*"].name
    subscription = await js.pull_subscribe_bind(durable=name, stream=stream)
    (message,) = await subscription.fetch(1, timeout=10)
    found["subject"] = message.subject
    found["body"] = message.data.decode()
    found["headers"] = dict(message.headers or {})
    await message.ack_sync()
    ack = await js.publish(f"{root}.live.p0.new", b"from Python", headers={"Trace": "42", "Content-Type": "text/plain"})
    found["sequence"] = ack.seq
    first = await js.publish(f"{root}.live.p0.new", b"once", headers={"Nats-Msg-Id": "m1"})
    again = await js.publish(f"{root}.live.p0.new", b"once", headers={"Nats-Msg-Id": "m1"})
    found["duplicate"] = [first.duplicate, again.duplicate, again.seq == first.seq]
    await client.close()
    print(json.dumps(found))


asyncio.run(main(*sys.argv[1:]))
