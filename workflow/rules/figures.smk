# Collect an experiment's results into tables, and draw its figures. A figure's source file is an input: changing it redraws that figure only.


rule collect:
    input:
        spec="results/experiments/{experiment}/experiment.yaml",
        results=lambda wc: PLAN.results_of(wc.experiment, WORKSPACE.chosen(wc.experiment, checkpoints)),
        data=ancient(lambda wc: PLAN.manifests_of(wc.experiment, WORKSPACE.chosen(wc.experiment, checkpoints))),
        choice=lambda wc: PLAN.choice_of(wc.experiment),
        code=PLAN.code_of("collect", ROOT),
    output:
        PLAN.tables(),
        PLAN.outputs("collect", ".md"),
        [
            report(page, caption=f"../report/{Path(page).stem}.rst", category="{experiment}", labels={"figure": Path(page).stem})
            for page in PLAN.outputs("collect", ".html")
        ],
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
        PLAN.tables(),
        choice=lambda wc: PLAN.choice_of(wc.experiment),
        code=lambda wc: PLAN.code_of("plot", ROOT, wc.experiment, wc.figure),
    output:
        report(PLAN.outputs("plot", ".svg"), caption="../report/figure.rst", category="{experiment}", labels={"figure": "{figure}"}),
        PLAN.outputs("plot", ".pdf", ".png", ".csv"),
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
