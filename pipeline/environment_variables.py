"""What the shell that starts a command brings along: which environment variables are honoured and which are shut out.

One table says it for all: `settle` acts on it when the `pipeline` command starts and when the Snakefile is read, so jobs inherit what is
left; the Makefile unsets what is shut out of the set-up; docs/reference/variables.md is made from it.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import MutableMapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple


class Variable(NamedTuple):
    """Variables that are treated alike, `*` for any rest of a name; the first entry of `TABLE` that fits a name counts."""

    names: str
    treatment: Literal["honoured", "recorded", "shut out", "searched last"]
    reason: str


TABLE = (
    Variable("PYTHONPATH", "searched last", "packages of this environment come first; a plug-in found there works. `make` unsets it"),
    Variable("PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE", "shut out", "the interpreter is that of the environment"),
    Variable("PYTHONWARNINGS", "shut out", "a library's warning is no error of a training"),
    Variable("PYTHONIOENCODING", "shut out", "files are UTF-8; what a terminal cannot show is written as an escape"),
    Variable("PYTHON*", "honoured", "they change no number"),
    Variable("LANG LC_* LANGUAGE TZ", "honoured", "messages of other programs; no file of results depends on them"),
    Variable("MPLBACKEND MATPLOTLIBRC", "shut out", "figures are drawn without a screen, from matplotlib's own defaults"),
    Variable("MPLCONFIGDIR", "honoured", "where matplotlib keeps its list of fonts"),
    Variable("PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_DRY_RUN", "shut out", "packages go into .venv"),
    Variable(
        "PIP_*", "honoured", "and pip's files: index, further indexes, local folders, certificate and trusted hosts; uv is told them too"
    ),
    Variable("UV_SYSTEM_PYTHON UV_TARGET UV_PREFIX UV_PYTHON UV_DRY_RUN", "shut out", "packages go into .venv"),
    Variable("UV_*", "honoured", "they come before what pip is told"),
    Variable("VIRTUAL_ENV CONDA_*", "honoured", "which change nothing: commands name .venv"),
    Variable("OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS", "honoured", "by libraries outside torch, which has `runtime.threads`"),
    Variable(
        "ATEN_CPU_CAPABILITY MKL_CBWR MKL_ENABLE_INSTRUCTIONS ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA NPY_DISABLE_CPU_FEATURES",
        "recorded",
        "instructions decide how sums are rounded; `environment.json` names them",
    ),
    Variable(
        "NVIDIA_TF32_OVERRIDE TORCH_ALLOW_TF32_CUBLAS_OVERRIDE CUBLAS_WORKSPACE_CONFIG",
        "recorded",
        "they decide how a GPU rounds; `environment.json` names them",
    ),
    Variable(
        "OMP_* GOMP_* KMP_* MKL_* OPENBLAS_* CUDA_* NCCL_* TORCH* TRITON_*", "honoured", "devices, placement of threads, logs, caches"
    ),
    Variable("GIT_*", "honoured", "but for the commit of the code, which is asked of the repository it lies in"),
    Variable("WANDB_API_KEY WANDB_BASE_URL WANDB_ENTITY WANDB_IDENTITY_TOKEN_FILE WANDB_*_DIR", "honoured", "who sends where"),
    Variable("WANDB_*", "shut out", "`tracking` says whether, and under which project, name and tags"),
    Variable("SNAKEMAKE_PROFILE", "honoured", "a profile of the site, beneath the workflow's own"),
    Variable("SNAKEMAKE_*", "honoured", "Snakemake's own"),
    Variable("BASH_ENV ENV CDPATH", "shut out", "the shell of a job runs nothing of a user's, and changes to the folder it was given"),
    Variable("CC", "honoured", "the compiler of the C functions"),
    Variable("HOME XDG_CACHE_HOME", "honoured", "where none can be written, caches lie in .venv (`make`) or in the temporary folder"),
    Variable("TMPDIR", "honoured", "where it cannot be written, Python takes another"),
    Variable("RECURLAB_PLUGINS", "honoured", "off: only the components of this repository are there"),
    Variable("RECURLAB_*", "honoured", "the container sets them; see containers/README.md"),
)


def treatment(name: str) -> str:
    """What is done with a variable; empty where the table says nothing of it, which leaves it alone."""
    return next((entry.treatment for entry in TABLE if any(fnmatchcase(name, part) for part in entry.names.split())), "")


def clean_environment(environ: MutableMapping[str, str] = os.environ) -> None:
    """Take out what is shut out, of `environ` and of this process, and search PYTHONPATH last."""
    warned = "PYTHONWARNINGS" in environ
    for name in [name for name in environ if treatment(name) == "shut out"]:
        del environ[name]
    if warned:
        warnings.resetwarnings()
    added = [str(Path(part).resolve()) for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    own = str(Path(__file__).resolve().parents[1])
    late = [entry for entry in sys.path if entry and entry != own and str(Path(entry).resolve()) in added]
    sys.path[:] = [entry for entry in sys.path if entry not in late] + late
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")


def recorded(environ: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that change how numbers are rounded, with their values."""
    return {name: environ[name] for name in sorted(environ) if treatment(name) == "recorded"}


def variables_text() -> str:
    """docs/reference/variables.md."""
    rows = [f"| {', '.join(f'`{name}`' for name in entry.names.split())} | {entry.treatment} | {entry.reason} |" for entry in TABLE]
    return "\n".join(
        [
            "# Environment variables",
            "",
            "What a shell, a notebook or a cluster has set when a command starts, and what becomes of it. *Honoured*: it has its usual effect.",
            "*Recorded*: the same, and `environment.json` of a run names it, since it changes how numbers are rounded. *Shut out*: removed before",
            "anything reads it, for the jobs as well. Variables that are not listed are left alone. Made from `pipeline/environment_variables.py`.",
            "",
            "| variables | | |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )
