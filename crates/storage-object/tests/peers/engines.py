"""Engines as peers of the tests: a JSON object on standard input, a JSON list on standard output.

In: `options` as `BlobStore::storage_options` names them, and `calls`, each with its name in `do` and an address in `uri`.
Out: what each call came to.
"""

import json
import sys

import deltalake
import duckdb
import polars

ROWS = polars.DataFrame({"n": [1, 2, 3]})


def total(frame):
    return frame.select(polars.col("n").sum()).collect().item()


def polars_csv(uri, options):
    return total(polars.scan_csv(uri, storage_options=options))


def polars_parquet(uri, options):
    ROWS.write_parquet(uri, storage_options=options)
    return total(polars.scan_parquet(uri, storage_options=options))


def delta(uri, options):
    for _ in range(2):
        deltalake.write_deltalake(uri, ROWS, mode="append", storage_options=options)
    version = deltalake.DeltaTable(uri, storage_options=options).version()
    return [version, total(polars.scan_delta(uri, storage_options=options))]


def duckdb_csv(uri, options):
    assert not options, options
    quoted = uri.replace("'", "''")
    return int(duckdb.execute(f"SELECT sum(n) FROM '{quoted}'").fetchall()[0][0])


def main():
    asked = json.load(sys.stdin)
    json.dump([globals()[call["do"]](call["uri"], asked["options"]) for call in asked["calls"]], sys.stdout)


main()
