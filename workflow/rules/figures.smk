# Collect an experiment's results into tables, and draw its figures. A figure's source file is an input: changing it redraws that figure only.


rule collect:
    input:
        spec="results/experiments/{experiment}/experiment.yaml",
        evaluations=lambda wc: [f"results/evaluations/{item.run}/{item.id}.parquet" for item in PLAN.evaluations_of(wc.experiment)],
        histories=lambda wc: [f"results/runs/{item.run}/history.parquet" for item in PLAN.evaluations_of(wc.experiment)],
        timings=lambda wc: [f"results/runs/{item.run}/timing.parquet" for item in PLAN.evaluations_of(wc.experiment)],
        profiles=lambda wc: [f"results/profiles/{name}.parquet" for name in PLAN.networks_of(wc.experiment)],
        data=ancient(lambda wc: [f"results/datasets/{name}/manifest.json" for name in PLAN.datasets_of(wc.experiment)]),
        code=PLAN.code_of("collect", ROOT),
    output:
        results="results/experiments/{experiment}/results.parquet",
        curves="results/experiments/{experiment}/curves.parquet",
        details="results/experiments/{experiment}/details.parquet",
        timing="results/experiments/{experiment}/timing.parquet",
        costs="results/experiments/{experiment}/costs.parquet",
        markdown="results/experiments/{experiment}/table.md",
        html=report(
            "results/experiments/{experiment}/table.html",
            caption="../report/table.rst",
            category="{experiment}",
            labels={"figure": "table"},
        ),
        settings=report(
            "results/experiments/{experiment}/settings.html",
            caption="../report/settings.rst",
            category="{experiment}",
            labels={"figure": "settings"},
        ),
    log:
        "results/logs/collect/{experiment}.log",
    benchmark:
        "results/benchmarks/collect/{experiment}.tsv"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        overlap=lambda wc: PLAN.experiments[wc.experiment].overlap,
    message:
        "Collect {wildcards.experiment}"
    shell:
        "pipeline collect {input.spec} > {log} 2>&1"


rule plot:
    input:
        results="results/experiments/{experiment}/results.parquet",
        curves="results/experiments/{experiment}/curves.parquet",
        details="results/experiments/{experiment}/details.parquet",
        timing="results/experiments/{experiment}/timing.parquet",
        costs="results/experiments/{experiment}/costs.parquet",
        code=lambda wc: PLAN.code_of("plot", ROOT, wc.experiment, wc.figure),
    output:
        svg=report(
            "results/experiments/{experiment}/{figure}.svg",
            caption="../report/figure.rst",
            category="{experiment}",
            labels={"figure": "{figure}"},
        ),
        pdf="results/experiments/{experiment}/{figure}.pdf",
        png="results/experiments/{experiment}/{figure}.png",
        csv="results/experiments/{experiment}/{figure}.csv",
    log:
        "results/logs/plot/{experiment}/{figure}.log",
    benchmark:
        "results/benchmarks/plot/{experiment}-{figure}.tsv"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        question=lambda wc: PLAN.experiments[wc.experiment].question,
        figure=lambda wc: PLAN.experiments[wc.experiment].figures[wc.figure].spec,
        looks=lambda wc: PLAN.experiments[wc.experiment].looks,
        overlap=lambda wc: PLAN.experiments[wc.experiment].overlap,
        caption=lambda wc: PLAN.experiments[wc.experiment].figures[wc.figure].caption,
    message:
        "Plot {wildcards.figure} of {wildcards.experiment}"
    shell:
        "pipeline plot {wildcards.figure} {wildcards.experiment} > {log} 2>&1"
