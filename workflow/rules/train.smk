# Train every run. No rule declares the files in results/checkpoints/, because Snakemake deletes the outputs of an interrupted job.


for number, (further, runs) in enumerate(PLAN.trainings()):

    rule:
        name:
            f"train_{number}" if number else "train"
        input:
            spec=ancient("results/runs/{run}/run.yaml"),
            data=ancient(lambda wc: [f"results/datasets/{dataset}/manifest.json" for dataset in PLAN.runs[wc.run].data]),
            parent=lambda wc: [f"results/runs/{parent}/manifest.json" for parent in PLAN.parents_of(wc.run)],
        output:
            PLAN.outputs("train", further=further),
        log:
            "results/logs/train/{run}.log",
        benchmark:
            "results/benchmarks/train/{run}.tsv"
        wildcard_constraints:
            run=runs,
        retries: 1
        threads: PLAN.runtime["threads"]
        resources:
            **PLAN.accelerators(),
            cpus_per_task=PLAN.runtime["threads"],
            mem_mb=PLAN.runtime["mem_mb"],
            runtime=PLAN.runtime["minutes"],
            nodes=PLAN.runtime["nodes"],
            tasks=0 if PLAN.runtime["gpus"] else PLAN.runtime["nodes"],
        params:
            spec=lambda wc: PLAN.runs[wc.run].canonical,
        message:
            "Train {wildcards.run}"
        shell:
            "pipeline train {input.spec} --threads {threads} > {log} 2>&1"
