# Write the spec of every dataset, network, run and experiment into its folder.


localrules:
    describe_dataset,
    describe_network,
    describe_run,
    describe_experiment,


rule describe_dataset:
    output:
        spec="results/datasets/{dataset}/dataset.yaml",
    log:
        "results/logs/describe/{dataset}.log",
    benchmark:
        "results/benchmarks/describe/{dataset}.tsv"
    params:
        spec=lambda wc: PLAN.spec("dataset", wc.dataset),
    message:
        "Write spec of dataset {wildcards.dataset}"
    shell:
        "pipeline describe dataset {wildcards.dataset} > {log} 2>&1"


rule describe_network:
    output:
        spec="results/profiles/{network}.yaml",
    log:
        "results/logs/describe/{network}.log",
    benchmark:
        "results/benchmarks/describe/{network}.tsv"
    params:
        spec=lambda wc: PLAN.spec("network", wc.network),
    message:
        "Write spec of network {wildcards.network}"
    shell:
        "pipeline describe network {wildcards.network} > {log} 2>&1"


rule describe_run:
    output:
        spec="results/runs/{run}/run.yaml",
    log:
        "results/logs/describe/{run}.log",
    benchmark:
        "results/benchmarks/describe/{run}.tsv"
    params:
        spec=lambda wc: PLAN.spec("run", wc.run),
    message:
        "Write spec of run {wildcards.run}"
    shell:
        "pipeline describe run {wildcards.run} > {log} 2>&1"


rule describe_experiment:
    output:
        spec="results/experiments/{experiment}/experiment.yaml",
    log:
        "results/logs/describe/{experiment}.log",
    benchmark:
        "results/benchmarks/describe/{experiment}.tsv"
    params:
        spec=lambda wc: PLAN.spec("experiment", wc.experiment),
    message:
        "Write spec of experiment {wildcards.experiment}"
    shell:
        "pipeline describe experiment {wildcards.experiment} > {log} 2>&1"
