# Evaluate every run on its test datasets.


rule evaluate:
    input:
        spec=ancient("results/runs/{run}/run.yaml"),
        model="results/runs/{run}/manifest.json",
        data=ancient(
            lambda wc: [f"results/datasets/{dataset}/manifest.json" for dataset in PLAN.evaluation(wc.run, wc.evaluation).datasets]
        ),
    output:
        PLAN.outputs("evaluate"),
    log:
        "results/logs/evaluate/{run}/{evaluation}.log",
    benchmark:
        "results/benchmarks/evaluate/{run}-{evaluation}.tsv"
    retries: 1
    threads: PLAN.runtime["threads"]
    resources:
        **PLAN.accelerators(most=1),
        cpus_per_task=PLAN.runtime["threads"],
        mem_mb=PLAN.runtime["mem_mb"],
        runtime=60,
    params:
        datasets=lambda wc: PLAN.evaluation(wc.run, wc.evaluation).datasets,
        measurement=lambda wc: PLAN.evaluation(wc.run, wc.evaluation).option,
        data=lambda wc: [f"--data results/datasets/{name}" for name in PLAN.evaluation(wc.run, wc.evaluation).datasets],
    message:
        "Evaluate {wildcards.run}"
    shell:
        "pipeline evaluate {input.spec} {params.data} --measurement {params.measurement:q} --out {output} --threads {threads} > {log} 2>&1"
