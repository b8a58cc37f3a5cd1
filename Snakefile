# Recurlab: config.yaml -> datasets -> training -> evaluation -> figures -> report.
#   snakemake                              the default suite, config.yaml
#   snakemake --config suite=FILE          another suite
#   snakemake --workflow-profile profiles/slurm    on a cluster; add --sdm apptainer for jobs in the image

import sys
from pathlib import Path

from snakemake.utils import min_version

ROOT = str(workflow.current_basedir)
sys.path.insert(0, ROOT)  # import the package beside this file, whatever else is installed

from pipeline.workspace import Workspace

min_version("9.27")

SUITE = Path((workflow.overwrite_configfiles or [config.get("suite", "config.yaml")])[0])
WORKSPACE = Workspace.open(SUITE, Path("results"), workflow)
PLAN = WORKSPACE.plan
config["written"] = PLAN.suite  # shown on the first page of the report

# Jobs call the `pipeline` package that this file imports, whatever is on PATH, or in a container the image's own. On a cluster only the
# trainer reacts to SIGUSR1 and SIGTERM: the shell around it ignores them and waits until the trainer has saved.
shell.prefix(f"set -euo pipefail; trap : TERM; trap '' USR1; {WORKSPACE.shell_prefix}; ")


report: "workflow/report/workflow.rst"


container: PLAN.runtime["container"]


wildcard_constraints:
    run=r"[a-z0-9-]+",
    dataset=r"[a-z0-9-]+",
    network=r"[a-z0-9-]+",
    evaluation=r"[a-z0-9-]+",
    shard=r"\d{5}",
    experiment=r"[a-z0-9_]+",
    figure=r"[a-z0-9_]+",


localrules:
    all,


rule all:
    input:
        [f"results/{file}" for file in PLAN.declared],
    message:
        "Everything in {SUITE} is done"


onsuccess:
    WORKSPACE.write_report(workflow)


onerror:
    WORKSPACE.on_error()


include: "workflow/rules/describe.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/tune.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/profile.smk"
include: "workflow/rules/figures.smk"
