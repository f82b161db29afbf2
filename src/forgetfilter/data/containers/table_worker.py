"""Weighs what a Parquet or Arrow file expands to; a program that `table_process` starts.

A few hundred bytes can stand for gigabytes: a dictionary with one long text, a run of equal values,
nulls, compressed buffers, or several of these one inside the other; and a file may lie about its
sizes, or be made to crash the library. So the file is decoded here first, batch by batch, where the
operating system limits memory and processor time, and where nothing is lost but this process.

A request is a line of JSON with the size of the file, then the file. The reply is a line of JSON:
``weight``, or ``error`` with a kind and a reason. The process ends when its input does, or when
nothing is asked for a minute. It imports nothing of this package, to start fast.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute
from pyarrow import parquet

try:
    import resource
except ImportError:  # Windows, where what is counted is limited, but not what one batch allocates
    resource = None

pc: Any = pyarrow.compute  # whose functions are made when it is imported
BATCH = 256
PER_VALUE = 16
"""Bytes that any value costs besides its own, nulls too: Python will make an object of it."""


IDLE_SECONDS = 60
"""After so long without a request the process ends; another one is started when needed."""


class TooDeep(Exception):
    """Types are nested too deeply; holds how deeply."""


def main() -> None:
    """Answer requests until there are no more."""
    while True:
        if hasattr(signal, "alarm"):
            signal.alarm(IDLE_SECONDS)
        line = sys.stdin.buffer.readline()
        if not line:
            return
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        print(json.dumps(_answer(**json.loads(line))), flush=True)


def _answer(kind: str, size: int, most: int, depth: int, seconds: int) -> dict[str, Any]:
    """What the file that follows on standard input weighs.

    Args:
        kind: parquet, file or stream (of Arrow).
        size: bytes of the file.
        most: the weight at which to stop.
        depth: how deeply types may be nested.
        seconds: processor time at most.
    """
    _limit(2 * size + 2 * most, seconds)
    data = sys.stdin.buffer.read(size)
    try:
        weight = 0
        for batch in _batches(kind, pa.BufferReader(data), depth):
            weight += PER_VALUE * batch.num_rows + sum(map(weigh, batch.columns))
            if weight > most:
                return {"error": "size"}
        return {"weight": weight}
    except MemoryError:  # pyarrow's own is one too
        return {"error": "size"}
    except TooDeep as error:
        return {"error": "depth", "reason": str(error)}
    except Exception as error:  # whatever the library says of a broken file
        return {"error": "damage", "reason": str(error)[:300]}


def _limit(more: int, seconds: int) -> None:
    """Let the system end what one file takes beyond so much memory and processor time."""
    if resource is None:
        return
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # not Linux; there the limit is not enforced either
        used = 2**32
    spent = resource.getrusage(resource.RUSAGE_SELF)
    until = int(spent.ru_utime + spent.ru_stime) + seconds
    for what, limit in (
        (resource.RLIMIT_AS, used + 2**28 + more),
        (resource.RLIMIT_CPU, until),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (allowed, hard))


def _batches(kind: str, source: Any, depth: int) -> Iterator[Any]:
    pa.set_memory_pool(pa.system_memory_pool())  # others reserve more than they use
    pa.set_cpu_count(1)
    if kind == "parquet":
        file = parquet.ParquetFile(source)
        _check_depth(file.schema_arrow, depth)
        yield from file.iter_batches(batch_size=BATCH, use_threads=False)
        return
    options = pa.ipc.IpcReadOptions(use_threads=False)
    if kind == "file":
        reader = pa.ipc.open_file(source, options=options)
        _check_depth(reader.schema, depth)
        found: Iterator[Any] = map(reader.get_batch, range(reader.num_record_batches))
    else:
        reader = pa.ipc.open_stream(source, options=options)
        _check_depth(reader.schema, depth)
        found = iter(reader)
    for batch in found:
        batch.validate(full=True)
        for start in range(0, batch.num_rows, 2**16):
            yield batch.slice(start, 2**16)
        if not batch.num_columns and batch.num_rows:
            raise ValueError("rows without columns")


def _check_depth(schema: Any, depth: int) -> None:
    waiting = [(field.type, 1) for field in schema]
    while waiting:
        kind, level = waiting.pop()
        if level > depth:
            raise TooDeep(f"{level}")
        if isinstance(kind, pa.BaseExtensionType):
            waiting.append((kind.storage_type, level + 1))
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            waiting.append((kind.value_type, level + 1))
        else:
            inner = [kind.field(at) for at in range(kind.num_fields)]
            waiting += [(field.type, level + 1) for field in inner]


def weigh(array: Any) -> int:
    """Bytes that an array's values are once each stands for itself."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return weigh(array.storage)
    if pa.types.is_dictionary(kind):
        return weigh_taken(array)
    if pa.types.is_run_end_encoded(kind):
        return PER_VALUE * len(array) + weigh(pc.run_end_decode(array))
    own = PER_VALUE * len(array)
    if _is_text(kind):
        return own + (pc.sum(pc.binary_length(array)).as_py() or 0)
    if pa.types.is_fixed_size_binary(kind):
        return own + kind.byte_width * len(array)
    if pa.types.is_struct(kind):
        return own + sum(weigh(array.field(at)) for at in range(kind.num_fields))
    if pa.types.is_union(kind):
        return own + sum(weigh(array.field(at)) for at in range(kind.num_fields))
    if pa.types.is_nested(kind):  # lists of all kinds, and maps, which are lists of pairs
        if pa.types.is_map(kind):
            start, stop = array.offsets[0].as_py(), array.offsets[-1].as_py()
            pairs = (array.keys, array.items)
            return own + sum(weigh(one.slice(start, stop - start)) for one in pairs)
        return own + weigh(array.flatten())
    return own


def weigh_taken(array: Any) -> int:
    """The weight of an array whose values stand in a dictionary, each time that one is used."""
    values = array.dictionary
    own = PER_VALUE * len(array)
    if _is_text(values.type):
        lengths = pc.binary_length(values).cast(pa.int64())
        return own + (pc.sum(lengths.take(array.indices)).as_py() or 0)
    if not pa.types.is_nested(values.type):
        return own
    uses = pc.value_counts(array.indices.drop_null())
    return own + sum(
        use["counts"].as_py() * weigh(values.slice(use["values"].as_py(), 1)) for use in uses
    )


def _is_text(kind: Any) -> bool:
    names = ("string", "large_string", "binary", "large_binary", "string_view", "binary_view")
    return str(kind) in names


if __name__ == "__main__":
    main()
