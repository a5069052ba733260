"""The official client of Azure Table Storage, by asyncio, at a table of the emulator.

Works off the lines of standard input, a JSON object each, and answers each with one: the seconds, and how many entities were written or found. Entities
and filters are ready when the clock starts.
"""

import argparse
import asyncio
import json
import sys
import time

from azure.core.credentials import AzureNamedKeyCredential
from azure.data.tables import EdmType, EntityProperty
from azure.data.tables.aio import TableServiceClient


def entity(row):
    return {
        "PartitionKey": row["partition"],
        "RowKey": row["id"],
        "name": row["name"],
        "status": row["status"],
        "bucket": EntityProperty(row["bucket"], EdmType.INT64),
        "score": row["score"],
        "created": EntityProperty(row["created"], EdmType.INT64),
    }


async def timed(at_once, call, works):
    """Makes so many of the calls at once, and adds up what they answer."""
    rest = iter(works)

    async def caller():
        return sum([await call(work) for work in rest])

    started = time.perf_counter()
    counts = await asyncio.gather(*(caller() for _ in range(at_once)))
    return {"seconds": time.perf_counter() - started, "count": sum(counts)}


class Tables:
    def __init__(self, service):
        self.service = service

    async def create(self, table, _at_once, _with):
        await self.service.create_table(table.table_name)
        return {"seconds": 0, "count": 0}

    async def drop(self, table, _at_once, _with):
        await self.service.delete_table(table.table_name)
        return {"seconds": 0, "count": 0}

    async def count(self, table, _at_once, _with):
        found = [entity async for entity in table.list_entities(select=["RowKey"])]
        return {"seconds": 0, "count": len(found)}

    async def insert(self, table, at_once, batches):
        async def batch(operations):
            return len(await table.submit_transaction(operations))

        async def single(one):
            await table.create_entity(one)
            return 1

        if all(len(rows) == 1 for rows in batches):
            return await timed(at_once, single, [entity(row) for [row] in batches])
        return await timed(at_once, batch, [[("create", entity(row)) for row in rows] for rows in batches])

    async def get(self, table, at_once, keys):
        async def one(key):
            found = await table.get_entity(*key)
            assert [found["PartitionKey"], found["RowKey"]] == key
            return 1

        return await timed(at_once, one, keys)

    async def query(self, table, at_once, queries):
        async def one(text):
            return len([entity async for entity in table.query_entities(text)])

        texts = [f"PartitionKey eq '{partition}' and bucket eq {bucket}L" for partition, bucket in queries]
        return await timed(at_once, one, texts)


async def answer(tables, ask):
    try:
        work = getattr(tables, ask["do"])
        return await work(tables.service.get_table_client(ask["table"]), ask["at_once"], ask.get("with"))
    except Exception as error:  # whatever it is, the other side tells it
        return {"error": f"{type(error).__name__}: {error}"}


async def main():
    parser = argparse.ArgumentParser()
    for name in ("endpoint", "account", "key"):
        parser.add_argument(f"--{name}", required=True)
    place = parser.parse_args()
    credential = AzureNamedKeyCredential(place.account, place.key)
    loop = asyncio.get_running_loop()
    async with TableServiceClient(endpoint=place.endpoint, credential=credential) as service:
        tables = Tables(service)
        # Not in the way of the loop, which sees meanwhile that the server closes idle connections.
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await answer(tables, json.loads(line))), flush=True)


asyncio.run(main())
