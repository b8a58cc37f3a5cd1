"""What an offline folder of wandb holds, read from its transaction log: what `wandb sync` sends.

The log is one of LevelDB's (https://github.com/google/leveldb/blob/main/doc/log_format.md) after a header of 7 bytes: blocks of 32 KiB, in them
pieces of records, each with a checksum (4 bytes), a length (2) and whether it is a whole record (1) or the first, a middle or the last piece
of one (2, 3, 4). A record is a protocol buffer.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER = 7
BLOCK = 1 << 15
WHOLE, LAST = 1, 4


def records(log: bytes) -> Iterator[bytes]:
    """The records of a transaction log."""
    assert log.startswith(b":W&B")
    record, place = b"", HEADER
    while place + HEADER <= len(log):
        if BLOCK - place % BLOCK < HEADER:  # the rest of a block that no piece fits into
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", log, place)
        record += log[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (WHOLE, LAST):
            yield record
            record = b""


def history(folder: Path) -> list[dict[str, Any]]:
    """The rows that were logged, without wandb's own columns."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    (file,) = folder.glob("run-*.wandb")
    found = [Record.FromString(record) for record in records(file.read_bytes())]
    rows = [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in one.history.item}
        for one in found
        if one.HasField("history")
    ]
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]
