# Choose among the candidates of every tuned experiment. A checkpoint: which runs are trained on further seeds and evaluated depends on it.


checkpoint choose:
    input:
        spec="results/experiments/{experiment}/experiment.yaml",
        histories=lambda wc: [f"results/runs/{run}/history.parquet" for run in PLAN.trials(wc.experiment)],
        code=PLAN.code_of("choose", ROOT),
    output:
        PLAN.outputs("choose"),
    log:
        "results/logs/choose/{experiment}.log",
    benchmark:
        "results/benchmarks/choose/{experiment}.tsv"
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "Choose among the candidates of {wildcards.experiment}"
    shell:
        "pipeline choose {input.spec} > {log} 2>&1"
