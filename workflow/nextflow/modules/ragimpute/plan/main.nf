process RAGIMPUTE_PLAN {
    tag "${meta.id}"
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container "${workflow.containerEngine in ['singularity', 'apptainer'] && !task.ext.singularity_pull_docker_container
        ? 'docker-daemon://ragimpute:0.1.0'
        : 'ragimpute:0.1.0'}"

    input:
    tuple val(meta), path(panel), path(target_vcf), path(target_index)

    output:
    tuple val(meta), path("*.jobs.tsv"), emit: jobs
    tuple val(meta), path("*.batches"), emit: batches
    tuple val("${task.process}"), val('ragimpute'), eval('ragimpute --version | sed "s/ragimpute //"'), topic: versions, emit: versions_ragimpute

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ""
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    ragimpute plan \\
        ${panel} \\
        ${target_vcf} \\
        ${args} \\
        --batch-dir ${prefix}.batches \\
        > ${prefix}.jobs.tsv
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir ${prefix}.batches
    touch ${prefix}.batches/1.txt
    printf 'region\\tbatch\\tmemory_mb\\n1:1-2\\t1\\t512\\n' > ${prefix}.jobs.tsv
    """
}
