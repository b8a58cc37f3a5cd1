"""Generating IsTree's rows against the public code of its paper: samples per CPU second, and stored bytes per token.

Ours: `generate` in the public code's form (its token numbers, orders and lengths; tests/tasks hold the layouts to them): tokens of 16 bits, a
role for each, metadata, rows kept apart by splits. Theirs: drawing the graphs, writing and tokenising them, and stacking the padded tensors
of tokens, masks and labels, with its progress bars silenced. Neither writes a file. Rounds are interleaved; medians.

`--peer DIR` names a checkout of the public code (dangxingyu/rnn-icrag), which is measured in the same run. Without it, the peer's numbers are
those recorded at commit e22a55c on two shared cores of an AMD EPYC under load, so the ratios hold only for a similar machine.

Bytes per token are those of a shard of ours, roles and metadata included, against three 64-bit numbers; that theirs pads is not counted.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Row, compare, cpu_seconds, report
from pipeline.config.tasks import IsTree as Config
from pipeline.storage.allocator import keep_freed_memory
from pipeline.storage.rng import derive_key
from pipeline.storage.shards import write_shard
from pipeline.tasks.is_tree import IsTree

RECORDED = {
    "direct": {16: 2734, 32: 2012, 64: 722},
    "cot": {16: 3804, 32: 2229, 64: 1005},
    "icr": {16: 1738, 32: 916, 64: 410},
}
"""Samples per CPU second of the public code, medians of three."""
OURS = {"direct": 40_000, "cot": 16_000, "icr": 8_000}
"""Samples that are made in a round."""
THEIRS = 150
STORED = 4096
THEIR_BYTES = 24.0


def ours(task: IsTree, rows: int, key: int) -> Any:
    """Make rows."""
    return task.generate(rows, derive_key("benchmark", key))


def peer_code(folder: Path) -> Any:
    """The public code's data module out of a checkout, progress bars silenced."""
    path = folder / "rnn" / "data.py"
    spec = importlib.util.spec_from_file_location("istree_peer", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"--peer {folder}: no rnn/data.py there; expected a checkout of dangxingyu/rnn-icrag")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.tqdm = lambda items, **_: items  # type: ignore[attr-defined]
    return module


def theirs(code: Any, layout: str, nodes: int) -> Callable[[], Any]:
    """Making THEIRS samples of double stars."""
    return lambda: code.IsTreeDataset(nodes, "binary", use_cot=layout != "direct", use_retrieval=layout == "icr", n_samples=THEIRS)


def speed(layout: str, nodes: int, code: Any, rounds: int, scale: float) -> Row:
    """One cell, in samples per CPU second."""
    task, rows = IsTree(Config(nodes=nodes, names=nodes, layout=layout, upstream=True)), int(OURS[layout] * scale)  # type: ignore[arg-type]
    ours(task, rows // 4, 0)
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(rounds):
        rates["ours"].append(rows / cpu_seconds(lambda key=number: ours(task, rows, key)))
        rates["theirs"].append(THEIRS / cpu_seconds(theirs(code, layout, nodes)) if code else RECORDED[layout][nodes])
    return compare(f"{layout}_{nodes}", statistics.median(rates["ours"]), statistics.median(rates["theirs"]), "samples/CPU-s")


def density(layout: str, nodes: int, folder: Path) -> Row:
    """Bytes per token of a shard of one cell."""
    task = IsTree(Config(nodes=nodes, names=nodes, layout=layout))  # type: ignore[arg-type]
    batch, path = ours(task, STORED, 0), folder / f"{layout}_{nodes}.parquet"
    write_shard(path, batch, {})
    tokens = len(batch.column("tokens").flatten())
    return compare(f"{layout}_{nodes} stored", path.stat().st_size / tokens, THEIR_BYTES, "B/token", "lower")


def main() -> None:
    """Measure every cell, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="three rounds of a quarter of the samples; under a minute")
    parser.add_argument("--rounds", type=int, help="rounds of the interleaved measurement; default 7, with --quick 3")
    parser.add_argument("--peer", type=Path, help="a checkout of the public code to measure against; default: recorded figures")
    arguments = parser.parse_args()
    limit_threads(arguments.peer is not None)
    keep_freed_memory()  # as the stage does
    np.random.seed(0)  # what the public code draws from
    code = peer_code(arguments.peer) if arguments.peer else None
    rounds, scale = arguments.rounds or (3 if arguments.quick else 7), 0.25 if arguments.quick else 1.0
    cells = [(layout, nodes) for layout, sizes in RECORDED.items() for nodes in sizes]
    with tempfile.TemporaryDirectory() as scratch:
        rows = [speed(*cell, code, rounds, scale) for cell in cells] + [density(*cell, Path(scratch)) for cell in cells]
    peer = "measured in this run" if code else "recorded figures of another run, on two shared cores of an AMD EPYC"
    report(rows, peer=f"dangxingyu/rnn-icrag e22a55c, double stars (there: binary), {peer}", rounds=rounds)


def limit_threads(peer: bool) -> None:
    """One thread everywhere, so that CPU seconds compare."""
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    if peer:
        import torch

        torch.set_num_threads(1)


if __name__ == "__main__":
    main()
