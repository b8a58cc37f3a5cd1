# Generate the rows of every dataset, shard by shard, and write its manifest.


rule generate:
    input:
        spec=ancient("results/datasets/{dataset}/dataset.yaml"),
    output:
        PLAN.outputs("generate"),
    log:
        "results/logs/generate/{dataset}/{shard}.log",
    benchmark:
        "results/benchmarks/generate/{dataset}-{shard}.tsv"
    resources:
        mem_mb=1500,
        runtime=10,
    message:
        "Generate shard {wildcards.shard} of {wildcards.dataset}"
    shell:
        "pipeline generate results/datasets/{wildcards.dataset} --shard {wildcards.shard} > {log} 2>&1"


rule seal:
    input:
        spec=ancient("results/datasets/{dataset}/dataset.yaml"),
        shards=lambda wc: [f"results/datasets/{wc.dataset}/{shard}.parquet" for shard in PLAN.datasets[wc.dataset].shards],
    output:
        PLAN.outputs("seal"),
    log:
        "results/logs/seal/{dataset}.log",
    benchmark:
        "results/benchmarks/seal/{dataset}.tsv"
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Seal {wildcards.dataset}"
    shell:
        "pipeline seal results/datasets/{wildcards.dataset} > {log} 2>&1"
