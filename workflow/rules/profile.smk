# Measure size and speed of each network. The job requests all cores, so that nothing else runs on the machine.


rule profile:
    input:
        spec=ancient("results/profiles/{network}.yaml"),
    output:
        PLAN.outputs("profile"),
    log:
        "results/logs/profile/{network}.log",
    benchmark:
        "results/benchmarks/profile/{network}.tsv"
    threads: workflow.cores or 1
    resources:
        mem_mb=PLAN.runtime["mem_mb"],
        runtime=30,
        gpu=min(PLAN.runtime["gpus"], 1),
    params:
        spec=lambda wc: PLAN.spec("network", wc.network),
    message:
        "Profile {wildcards.network}"
    shell:
        "pipeline profile {input.spec} --out {output} > {log} 2>&1"
