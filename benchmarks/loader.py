"""The loader against Hugging Face `datasets`: a full shuffled epoch over the same Parquet files, in tokens per CPU second.

Ours: open the dataset (every byte hashed), decode it, draw one shuffled epoch as int64 batches of 64 with the labels that the roles give.
Theirs: the files are converted to their Arrow cache beforehand, which is not counted; then the shuffled dataset is read in batches of 64
and its tokens alone made int64, in the numpy or the torch format, whichever is faster in that round. Rounds are interleaved; medians.

The tokens are uniform over a vocabulary of 256, so each needs at least eight bits.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import compare, cpu_seconds, report
from pipeline.storage.allocator import keep_freed_memory
from pipeline.storage.loader import OPEN_GROUPS, Mode, open_rows
from pipeline.storage.manifest import seal
from pipeline.storage.rng import derive_key, generator
from pipeline.storage.shards import ROWS_PER_GROUP, shard_name, write_shard
from pipeline.tasks.base import Ragged, rows_of

LENGTH, BATCH, VOCABULARY = 512, 64, 256
SHARD = 65_536


def build(folder: Path, rows: int) -> float:
    """Write and seal a dataset of language-model rows; returns its bytes per token."""
    names = []
    for index, first in enumerate(range(0, rows, SHARD)):
        rng, count = generator(derive_key("benchmark", index)), min(SHARD, rows - first)
        tokens = Ragged(rng.integers(VOCABULARY, size=count * LENGTH, dtype=np.uint16), np.full(count, LENGTH), fixed=True)
        layouts = [bytes(prompt) + b"\1" * (LENGTH - prompt) for prompt in range(64, 128)]
        batch = rows_of(tokens, layouts, rng.integers(64, size=count), {"level": rng.integers(100, size=count)}, padding=0)
        names.append(shard_name(index))
        write_shard(folder / names[-1], batch, {"shard": str(index)})
    seal(folder, names, {"rows": rows})
    return sum((folder / name).stat().st_size for name in names) / (rows * LENGTH)


def ours(folder: Path, rows: int, mode: Mode) -> None:
    """Open, decode and read one shuffled epoch."""
    from pipeline.learners.sampler import ShardSampler

    sampler = ShardSampler(open_rows(folder, mode), BATCH, seed=0)
    seen = sum(sampler.next().tokens_BT.numel() for _ in range(rows // BATCH))
    assert seen == rows * LENGTH


def theirs(dataset: Any, rows: int, form: str) -> None:
    """Read one shuffled epoch of tokens."""
    import torch

    seen = 0
    for batch in dataset.with_format(form, columns=["tokens"]).iter(BATCH):
        tokens = batch["tokens"]
        tokens = torch.from_numpy(tokens.astype(np.int64)) if form == "numpy" else tokens.long()
        seen += tokens.numel()
    assert seen == rows * LENGTH


def speed(folder: Path, cache: Path, rows: int, rounds: int) -> dict[str, float]:
    """Median million tokens per CPU second of each way, measured in turn."""
    try:
        import datasets  # pyright: ignore[reportMissingImports]  # a peer, in an extra of its own
    except ImportError:
        raise SystemExit("benchmarks.loader: datasets is not installed; expected it from uv pip install '.[peers]'") from None

    datasets.disable_progress_bars()
    files = sorted(str(path) for path in folder.glob("*.parquet"))
    shuffled = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(cache)).shuffle(seed=0)
    ways = {
        "memory": lambda: ours(folder, rows, "memory"),
        "row_groups": lambda: ours(folder, rows, "row_groups"),
        "numpy": lambda: theirs(shuffled, rows, "numpy"),
        "torch": lambda: theirs(shuffled, rows, "torch"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(cpu_seconds(way))
    return {name: rows * LENGTH / 1e6 / statistics.median(times) for name, times in seconds.items()}


def peak_memory(folder: Path, rows: int) -> float:
    """Largest resident MiB of a fresh process that reads an epoch by row groups."""
    command = [sys.executable, "-m", "benchmarks.loader", "--measure", str(folder), "--rows", str(rows)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Build, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="65 536 rows instead of a million; under a minute")
    parser.add_argument("--rows", type=int, help="rows of 512 tokens")
    parser.add_argument("--rounds", type=int, help="rounds of the interleaved measurement; default 3, with --quick 1")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rows = arguments.rows or (65_536 if arguments.quick else 1_000_000)
    limit_threads()
    keep_freed_memory()  # as a training does; for both
    if arguments.measure:
        ours(arguments.measure, rows // BATCH * BATCH, "row_groups")
        print(peak())
        return
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HF_HOME"] = f"{scratch}/home"
        measure(Path(scratch), rows // BATCH * BATCH, arguments.rounds or (1 if arguments.quick else 3))


def measure(scratch: Path, rows: int, rounds: int) -> None:
    """Both comparisons over datasets below `scratch`."""
    small = max(rows // 4, OPEN_GROUPS * ROWS_PER_GROUP) // BATCH * BATCH
    density = build(scratch / "large", rows)
    build(scratch / "small", small)
    rates = speed(scratch / "large", scratch / "cache", rows, rounds)
    form = max(("numpy", "torch"), key=lambda name: rates[name])
    memory = {size: peak_memory(scratch / name, size) for name, size in (("small", small), ("large", rows))}
    report(
        [
            compare("loader", rates["memory"], rates[form], "Mtoken/CPU-s"),
            compare("loader, row groups", rates["row_groups"], rates[form], "Mtoken/CPU-s"),
            compare(f"row groups, peak memory: {rows} rows against {small}", memory[rows], memory[small], "MiB", "lower"),
            compare("bytes per token against the 16 bits held", density, 2.0, "B/token", "lower"),
        ],
        rows_of_512=rows,
        peer=f"datasets, {form} format, tokens only, conversion to its cache not counted",
        others={name: round(rate, 1) for name, rate in rates.items()},
    )


def peak() -> float:
    """Largest resident MiB of this process since it started; getrusage would count the parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def limit_threads() -> None:
    """One thread everywhere, so that CPU seconds compare."""
    import pyarrow as pa
    import torch

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


if __name__ == "__main__":
    main()
