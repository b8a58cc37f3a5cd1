"""Which environment variables are honoured and which are removed.

`clean_environment` applies `TABLE` when the `pipeline` command starts and when the Snakefile is read, so jobs inherit the result; the
Makefile unsets the variables that would affect the installation; docs/reference/variables.md is generated from the table.
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
    """Variables with one treatment; `*` matches any rest of a name. The first matching entry of `TABLE` applies."""

    names: str
    treatment: Literal["honoured", "recorded", "removed", "searched last"]
    reason: str


TABLE = (
    Variable("PYTHONPATH", "searched last", "packages of the environment come first; plug-ins found there work. `make` unsets it"),
    Variable("PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE", "removed", "the environment's interpreter is used"),
    Variable("PYTHONWARNINGS", "removed", "so that a library's warning does not fail a training"),
    Variable("PYTHONIOENCODING", "removed", "files are UTF-8; characters that a terminal cannot show are escaped"),
    Variable("PYTHON*", "honoured", "they do not affect numbers"),
    Variable("LANG LC_* LANGUAGE TZ", "honoured", "they affect messages of other programs, but no result"),
    Variable("MPLBACKEND MATPLOTLIBRC", "removed", "figures are drawn without a screen, from matplotlib's own defaults"),
    Variable("MPLCONFIGDIR", "honoured", "where matplotlib keeps its list of fonts"),
    Variable("PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_DRY_RUN", "removed", "packages go into .venv"),
    Variable(
        "PIP_*",
        "honoured",
        "as are pip's config files: index, extra indexes, local folders, certificate and trusted hosts; they are passed to uv",
    ),
    Variable("UV_SYSTEM_PYTHON UV_TARGET UV_PREFIX UV_PYTHON UV_DRY_RUN", "removed", "packages go into .venv"),
    Variable("UV_*", "honoured", "they take precedence over pip's settings"),
    Variable("VIRTUAL_ENV CONDA_*", "honoured", "without effect: commands use .venv"),
    Variable(
        "OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS",
        "honoured",
        "by libraries other than torch, whose threads are `runtime.threads`",
    ),
    Variable(
        "ATEN_CPU_CAPABILITY MKL_CBWR MKL_ENABLE_INSTRUCTIONS ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA NPY_DISABLE_CPU_FEATURES",
        "recorded",
        "the instruction set affects rounding",
    ),
    Variable(
        "NVIDIA_TF32_OVERRIDE TORCH_ALLOW_TF32_CUBLAS_OVERRIDE CUBLAS_WORKSPACE_CONFIG",
        "recorded",
        "they affect rounding on GPUs",
    ),
    Variable(
        "OMP_* GOMP_* KMP_* MKL_* OPENBLAS_* CUDA_* NCCL_* TORCH* TRITON_*", "honoured", "devices, placement of threads, logs, caches"
    ),
    Variable("GIT_*", "honoured", "except for the commit of the code, which is read from its own repository"),
    Variable("WANDB_API_KEY WANDB_BASE_URL WANDB_ENTITY WANDB_IDENTITY_TOKEN_FILE WANDB_*_DIR", "honoured", "account and server"),
    Variable("WANDB_*", "removed", "`tracking` sets mode, project, name and tags"),
    Variable("SNAKEMAKE_PROFILE", "honoured", "a site profile, overridden by the workflow's own"),
    Variable("SNAKEMAKE_*", "honoured", "by Snakemake"),
    Variable("BASH_ENV ENV CDPATH", "removed", "so that a job's shell runs no user code and changes to the right folder"),
    Variable("CC", "honoured", "the compiler of the C kernels"),
    Variable("HOME XDG_CACHE_HOME", "honoured", "if not writable, caches are in .venv (`make`) or in the temporary folder"),
    Variable("TMPDIR", "honoured", "if not writable, Python uses another"),
    Variable("RECURLAB_PLUGINS", "honoured", "off: only this repository's components are available"),
    Variable("RECURLAB_*", "honoured", "set in the container; see containers/README.md"),
)


def treatment(name: str) -> str:
    """Return the treatment of a variable; empty if it is not in the table and left unchanged."""
    return next((entry.treatment for entry in TABLE if any(fnmatchcase(name, part) for part in entry.names.split())), "")


def clean_environment(environ: MutableMapping[str, str] = os.environ) -> None:
    """Delete removed variables from `environ`, undo their effect on this process, and search PYTHONPATH last."""
    warned = "PYTHONWARNINGS" in environ
    for name in [name for name in environ if treatment(name) == "removed"]:
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
    """Return the variables that affect rounding, with their values."""
    return {name: environ[name] for name in sorted(environ) if treatment(name) == "recorded"}


def variables_text() -> str:
    """Return the text of docs/reference/variables.md."""
    rows = [f"| {', '.join(f'`{name}`' for name in entry.names.split())} | {entry.treatment} | {entry.reason} |" for entry in TABLE]
    return "\n".join(
        [
            "# Environment variables",
            "",
            "How variables set by a shell, a notebook or a cluster are treated. *Honoured*: the variable has its usual effect.",
            "*Recorded*: the same, and a run's `environment.json` records it, because it changes rounding. *Removed*: deleted before",
            "anything reads it, for the jobs too. Variables that are not listed are unchanged. Generated from `pipeline/environment_variables.py`.",
            "",
            "| variables | | |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )
