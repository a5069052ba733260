"""azure-data-tables as a peer of the tests: a JSON object on standard input, a JSON list on standard output.

In: `endpoint`, `account`, `key`, `table`, and `calls`, each with its name in `do`. Values other than text, booleans and 32-bit integers are
`{"Edm.Int64": 5}` and so on, in both directions.
"""

import base64
import json
import sys
from datetime import datetime

from azure.core.credentials import AzureNamedKeyCredential
from azure.data.tables import EdmType, EntityProperty, TableServiceClient, UpdateMode


def to_python(value):
    if not isinstance(value, dict):
        return value
    ((kind, value),) = value.items()
    if kind == "Edm.Int64":
        return EntityProperty(value, EdmType.INT64)
    if kind == "Edm.DateTime":
        return datetime.fromisoformat(value)
    if kind == "Edm.Binary":
        return base64.b64decode(value)
    return value


def to_json(value):
    if isinstance(value, EntityProperty):
        return {"Edm.Int64": value.value}
    if isinstance(value, datetime):
        return {"Edm.DateTime": value.isoformat()}
    if isinstance(value, bytes):
        return {"Edm.Binary": base64.b64encode(value).decode()}
    if isinstance(value, float):
        return {"Edm.Double": value}
    return value


def entity(call):
    return {name: to_python(value) for name, value in call["entity"].items()}


def create_table(service, table, call):
    service.create_table(call.get("name", table.table_name))


def delete_table(service, table, call):
    service.delete_table(call.get("name", table.table_name))


def get(service, table, call):
    found = table.get_entity(call["partition"], call["row"])
    return {name: to_json(value) for name, value in found.items()}


def query(service, table, call):
    return [{name: to_json(value) for name, value in found.items()} for found in table.query_entities(call["filter"])]


def create(service, table, call):
    table.create_entity(entity(call))


def replace(service, table, call):
    table.update_entity(entity(call), mode=UpdateMode.REPLACE)


def merge(service, table, call):
    table.update_entity(entity(call), mode=UpdateMode.MERGE)


def drop_property(service, table, call):
    found = table.get_entity(call["partition"], call["row"])
    del found[call["property"]]
    table.update_entity(found, mode=UpdateMode.REPLACE)


def insert_batches(service, table, call):
    """As many entities as `count` says, in transactions of 100, each a partition."""
    for start in range(0, call["count"], 100):
        rows = range(start, min(start + 100, call["count"]))
        table.submit_transaction([("create", {"PartitionKey": f"p{start}", "RowKey": str(n), "n": n}) for n in rows])


def main():
    asked = json.load(sys.stdin)
    credential = AzureNamedKeyCredential(asked["account"], asked["key"])
    service = TableServiceClient(endpoint=asked["endpoint"], credential=credential)
    table = service.get_table_client(asked["table"])
    json.dump([globals()[call["do"]](service, table, call) for call in asked["calls"]], sys.stdout)


main()
