# Recurlab: config.yaml -> datasets -> training -> evaluation -> figures -> report.
#   snakemake                              the default suite, config.yaml
#   snakemake --config suite=FILE          another suite instead of it
#   snakemake --workflow-profile profiles/slurm    on a cluster; add --sdm apptainer for jobs in the image

import sys
from pathlib import Path

from snakemake.utils import min_version

ROOT = str(workflow.current_basedir)
sys.path.insert(0, ROOT)  # the package beside this file comes before any other of its name

from pipeline.workspace import Workspace

min_version("9.27")

SUITE = Path((workflow.overwrite_configfiles or [config.get("suite", "config.yaml")])[0])
WORKSPACE = Workspace.open(SUITE, Path("results"), workflow)
PLAN = WORKSPACE.plan
config["written"] = PLAN.suite  # for the first page of the report

# Jobs call `pipeline`: the package that this file imports, whatever is on the path, or in a container the image's own. A cluster's signals
# are for the trainer: the shell around it waits until it has saved, and a warning that time is nearly up ends nothing else.
shell.prefix(f"set -euo pipefail; trap : TERM; trap '' USR1; {WORKSPACE.shell}; ")


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
    WORKSPACE.failed()


include: "workflow/rules/describe.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/profile.smk"
include: "workflow/rules/figures.smk"
