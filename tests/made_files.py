"""Files of rows in every layout, each as its usual writer makes it."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

LAYOUTS = ("jsonl", "jsonl.gz", "jsonl.zst", "json", "csv", "tsv", "parquet", "arrow", "folder")


def write(folder: Path, layout: str, rows: Sequence[dict[str, Any]]) -> Path:
    """The rows in a file of this layout, as its usual writer makes it."""
    path = folder / ("saved" if layout == "folder" else f"rows.{layout}")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if layout == "jsonl":
        path.write_bytes(lines)
    elif layout == "jsonl.gz":
        path.write_bytes(gzip.compress(lines))
    elif layout == "jsonl.zst":
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(lines)
    elif layout == "json":
        path.write_text(json.dumps(list(rows), indent=2, ensure_ascii=False), encoding="utf-8")
    elif layout in ("csv", "tsv"):
        flat = [
            {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows
        ]
        with open(path, "w", encoding="utf-8", newline="") as file:
            kind = "excel" if layout == "csv" else "excel-tab"
            writer = csv.DictWriter(file, list(flat[0]), dialect=kind)
            writer.writeheader()
            writer.writerows(flat)
    elif layout == "parquet":
        Dataset.from_list(list(rows)).to_parquet(str(path))
    elif layout == "arrow":
        table = Dataset.from_list(list(rows)).data.table
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    else:
        Dataset.from_list(list(rows)).save_to_disk(str(path))
    return path
