# `make` installs into .venv and runs the default suite; `make test` installs and runs the tests; `make test-cluster` runs the tests that need
# SLURM or the container image; `make image` and `make sif` build that image.
# Variables: PYTHON=python3.12 (3.11 to 3.13), SUITE=config.yaml, PROFILE=profiles/slurm for a cluster, SDM=apptainer to run jobs in the image.

PYTHON ?= python3
SUITE ?= config.yaml
PROFILE ?= default
SDM ?=
BIN := .venv/bin
READY := .venv/.ready
# Pass pip's settings (variables and config files) to uv, unless uv's own variables are set; like pip, choose versions from all indexes.
SOURCES = settings="$$($(BIN)/python -m pip config list 2>/dev/null)"; \
  setting() { printf '%s\n' "$$settings" | sed -n "s/^[a-z:]*\.$$1='\(.*\)'\$$/\1/p" | head -n 1; }; \
  cert="$${SSL_CERT_FILE:-$$(setting cert)}"; if [ -n "$$cert" ]; then export SSL_CERT_FILE="$$cert"; fi; \
  export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$(setting index-url)}" UV_INDEX="$${UV_INDEX:-$$(setting extra-index-url)}" \
  UV_FIND_LINKS="$${UV_FIND_LINKS:-$$(setting find-links | tr -s ' ' ,)}" UV_INSECURE_HOST="$${UV_INSECURE_HOST:-$$(setting trusted-host)}" \
  UV_INDEX_STRATEGY="$${UV_INDEX_STRATEGY:-unsafe-best-match}";
UV = $(SOURCES) $(BIN)/uv pip install --quiet --python .venv --constraint constraints.txt
# Variables that pipeline/environment_variables.py removes, and those that would install packages elsewhere than into .venv.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE PYTHONWARNINGS PYTHONIOENCODING BASH_ENV ENV CDPATH MPLBACKEND MATPLOTLIBRC
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_DRY_RUN UV_SYSTEM_PYTHON UV_TARGET UV_PREFIX UV_PYTHON UV_DRY_RUN
export PYTHONUTF8 := 1
# If the home folder is not writable, put caches into .venv.
CACHES := $(shell folder="$${XDG_CACHE_HOME:-$$HOME/.cache}"; mkdir -p "$$folder" 2>/dev/null && test -w "$$folder" && echo usable)
ifeq ($(CACHES),)
  export XDG_CACHE_HOME := $(CURDIR)/.venv/cache
endif
# A workflow starts many short processes: without bytecode each would compile torch's Python code again, which takes five seconds.
unexport PYTHONDONTWRITEBYTECODE
ON_PATH := PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: all setup test test-cluster lint docs lock image sif clean
.DELETE_ON_ERROR:

all: $(READY)
	@if [ -t 1 ]; then LOGGER="--logger rich"; fi; \
	$(ON_PATH) snakemake --workflow-profile "$(PROFILE)" $(if $(SDM),--sdm $(SDM)) --config "suite=$(SUITE)" $$LOGGER

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@echo "Installing into .venv"
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 14) else f"Recurlab needs Python 3.11 to 3.13, $(PYTHON) is {sys.version.split()[0]}; use make PYTHON=python3.12")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(UV) --editable .
	@touch $@

.venv/.ready-test: $(READY)
	@$(UV) --editable '.[test,slurm]'
	@touch $@

.venv/.ready-docs: $(READY)
	@$(UV) --editable '.[docs]'
	@touch $@

# Some tests wait, for a disk or another process: three workers keep two CPUs busy.
test: .venv/.ready-test
	@OMP_NUM_THREADS=1 $(ON_PATH) pytest -n 3 --dist worksteal $(PYTEST)

# These tests mostly wait, so there are more workers than CPUs.
test-cluster: .venv/.ready-test
	@OMP_NUM_THREADS=1 $(ON_PATH) pytest -m "slurm or container" -n 4 --dist worksteal -r s $(PYTEST)

lint: .venv/.ready-test
	@$(ON_PATH) ruff check .
	@$(ON_PATH) ruff format --check .
	@$(ON_PATH) pyright
	@$(ON_PATH) snakefmt --check Snakefile workflow
	@$(ON_PATH) snakemake --lint
	@$(ON_PATH) hadolint containers/Dockerfile

docs: .venv/.ready-docs
	@$(ON_PATH) mkdocs build --strict --quiet

lock: $(READY)
	@$(SOURCES) UV_FIND_LINKS= $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header pyproject.toml --output-file constraints.txt

image:
	@containers/build.sh image

sif:
	@containers/build.sh sif

clean:
	rm -rf .venv results .snakemake
