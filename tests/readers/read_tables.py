#!/usr/bin/env python3
"""Reads the tables of a data directory with programs that know nothing of Windrose.

    python read_tables.py DATA_DIR/tables [--expect spans=23844] [--expect hops=...]

Needs `deltalake`, `duckdb` and `pyarrow` from PyPI. Every reader must see the same rows in the same table: counts,
distinct trace ids, bounds of times, and the nested columns (maps, lists of structs, decimals) by value. Prints one
line of JSON per table; ends with 1 and says what differs when readers disagree or a count is not the expected one.
"""
import argparse
import json
import sys

import duckdb
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable

TIME = {"spans": "start_ns", "hops": "start_ns", "requests": "start_ns", "edges": "window_start_ns"}


def facts(rows, first, last, traces, nested):
    return {"rows": int(rows), "first": first, "last": last, "traces": traces, "nested": nested}


def by_deltalake(path, table):
    """The Delta Lake library of Rust, read into Arrow."""
    opened = DeltaTable(path)
    data = opened.to_pyarrow_table() if hasattr(opened, "to_pyarrow_table") else opened.to_pyarrow_dataset().to_table()
    return of_arrow(data, table)


def by_pyarrow(path, table):
    """pyarrow over the files the log lists: what any engine does that reads the log itself."""
    files = [f if "://" not in f else f.split("://", 1)[1] for f in DeltaTable(path).file_uris()]
    return of_arrow(ds.dataset(files, format="parquet").to_table(), table) if files else facts(0, None, None, 0, 0)


def of_arrow(data, table):
    if data.num_rows == 0:
        return facts(0, None, None, 0, 0)
    bounds = pc.min_max(data[TIME[table]]).as_py()
    traces = pc.count_distinct(data["trace_id"].cast("binary")).as_py() if "trace_id" in data.column_names else 0
    return facts(data.num_rows, bounds["min"], bounds["max"], traces, nested_of_arrow(data, table))


def nested_of_arrow(data, table):
    if table == "spans":
        return sum(len(row) for row in data["attributes"].to_pylist())
    if table == "edges":
        sketches = sum(bucket["count"] for row in data["client_sketch"].to_pylist() for bucket in row)
        return [sketches, str(sum(data["client_sum_ns"].to_pylist()))]
    return sum(len(row) for row in data["reasons"].to_pylist())


def by_duckdb(path, table):
    connection = duckdb.connect()
    try:
        connection.execute("INSTALL delta; LOAD delta;")
        source = f"delta_scan('{path}')"
        connection.execute(f"SELECT count(*) FROM {source}").fetchone()
    except duckdb.Error as error:
        # The extension is downloaded; without a network DuckDB reads the files the log lists.
        print(f"{table}: DuckDB without its delta extension ({str(error).splitlines()[0]})", file=sys.stderr)
        files = DeltaTable(path).file_uris()
        if not files:
            return facts(0, None, None, 0, 0)
        source = f"read_parquet({files!r}, hive_partitioning=true)"
    traces = "count(DISTINCT trace_id)" if table != "edges" else "0"
    query = f"SELECT count(*), min({TIME[table]}), max({TIME[table]}), {traces} FROM {source}"
    rows, first, last, distinct = connection.execute(query).fetchone()
    if rows == 0:
        return facts(0, None, None, 0, 0)
    if table == "spans":
        nested = connection.execute(f"SELECT sum(cardinality(attributes)) FROM {source}").fetchone()[0]
        nested = int(nested)
    elif table == "edges":
        buckets = connection.execute(
            f"SELECT coalesce(sum(bucket.count), 0) FROM (SELECT unnest(client_sketch) AS bucket FROM {source})"
        ).fetchone()[0]
        total = connection.execute(f"SELECT sum(client_sum_ns::HUGEINT) FROM {source}").fetchone()[0]
        nested = [int(buckets), str(int(total))]
    else:
        nested = int(connection.execute(f"SELECT sum(len(reasons)) FROM {source}").fetchone()[0])
    return facts(rows, first, last, distinct, nested)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables")
    parser.add_argument("--expect", action="append", default=[], metavar="TABLE=ROWS")
    arguments = parser.parse_args()
    expected = dict(pair.split("=") for pair in arguments.expect)
    wrong = []
    for table in TIME:
        path = f"{arguments.tables.rstrip('/')}/{table}"
        seen = {reader.__name__[3:]: reader(path, table) for reader in (by_deltalake, by_pyarrow, by_duckdb)}
        first = seen["deltalake"]
        print(json.dumps({"table": table, "version": DeltaTable(path).version(), **first}))
        wrong += [f"{table}: {name} sees {found}, deltalake sees {first}" for name, found in seen.items() if found != first]
        if table in expected and first["rows"] != int(expected[table]):
            wrong.append(f"{table}: {first['rows']} rows, expected {expected[table]}")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
