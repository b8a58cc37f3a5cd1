"""Overhead of containers and clusters: wall seconds of a small suite in the image, on SLURM, and both, against plain `snakemake`.

    python -m benchmarks.platform --sif containers/recurlab.sif            26 jobs, each way once, minutes
    python -m benchmarks.platform --sif containers/recurlab.sif --quick    17 jobs

Rows `sif`, `slurm` and `slurm_sif`; ours is that way, peer is `local`, all in one run. The cluster is a real SLURM of three nodes that this
process starts on this machine (root, Debian's slurm-wlm and munge), so it has no
more CPUs than `local`: the difference is the overhead of submission.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.common import Row, compare, report
from tests.slurm.cluster import Cluster, missing
from tests.slurm.suite import SlurmSuite
from tests.workflow.suite import Suite, tiny


def small(quick: bool, sif: Path | None) -> dict[str, Any]:
    """The tests' tiny suite, with one run and test set or with two of each."""
    config = tiny()
    experiment = config["experiments"]["first"]
    experiment["base"]["learner"]["steps"] = 600
    if quick:
        experiment["sweep"]["network.mixer"] = ["gru"]
    if sif:
        config["runtime"] = {"container": str(sif.resolve())}
    return config


def seconds(suite: Suite, *words: str) -> float:
    """Wall seconds of one run of a suite to its end."""
    begin = time.perf_counter()
    code, output = suite.call(*words)
    if code:
        raise click.ClickException(output)
    return time.perf_counter() - begin


def measure(folder: Path, quick: bool, sif: Path | None) -> tuple[list[Row], dict[str, float]]:
    """All ways that can be had here, one after the other, and whether they ended in the same bytes; seconds by way."""
    ways: dict[str, Suite] = {"local": Suite(_made(folder / "local"), small(quick, None))}
    if sif:
        ways["sif"] = Suite(_made(folder / "sif"), small(quick, sif))
    cluster = None if missing() else Cluster()
    try:
        if cluster:
            cluster.up()
            ways["slurm"] = SlurmSuite(_made(folder / "slurm"), small(quick, None), cluster)
            if sif:
                ways["slurm_sif"] = SlurmSuite(_made(folder / "slurm_sif"), small(quick, sif), cluster)
        took = {name: seconds(suite, *(("--sdm", "apptainer") if "sif" in name else ())) for name, suite in ways.items()}
    finally:
        if cluster:
            cluster.down()
    same = [suite.digests() == ways["local"].digests() for suite in ways.values()]
    if not all(same):
        raise click.ClickException(f"other bytes than local: {[name for name, alike in zip(ways, same, strict=True) if not alike]}")
    return [compare(name, value, took["local"], "s", "lower") for name, value in took.items() if name != "local"], took


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@click.command()
@click.option("--quick", is_flag=True, help="One training instead of two.")
@click.option("--sif", type=click.Path(exists=True, path_type=Path), help="The image; without it rows sif and slurm_sif are left out.")
def main(quick: bool, sif: Path | None) -> None:
    """Measure what running elsewhere costs."""
    with tempfile.TemporaryDirectory() as name:
        rows, took = measure(Path(name), quick, sif)
    if not rows:
        raise click.ClickException(f"neither SLURM ({missing()}) nor an image (--sif) to compare with")
    report(rows, seconds={way: round(value, 1) for way, value in took.items()})


if __name__ == "__main__":
    main()
