process RAGIMPUTE_MERGE {
    tag "${meta.id}"
    label 'process_low'

    conda "${moduleDir}/environment.yml"
    container "${workflow.containerEngine in ['singularity', 'apptainer'] && !task.ext.singularity_pull_docker_container
        ? 'docker-daemon://ragimpute:0.1.0'
        : 'ragimpute:0.1.0'}"

    input:
    tuple val(meta), path(vcfs)
    val suffix

    output:
    tuple val(meta), path("*.{vcf,vcf.gz,bcf}"), emit: vcf
    tuple val(meta), path("*.{tbi,csi}"), emit: index, optional: true
    tuple val("${task.process}"), val('ragimpute'), eval('ragimpute --version | sed "s/ragimpute //"'), topic: versions, emit: versions_ragimpute

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ""
    def prefix = task.ext.prefix ?: "${meta.id}.merged"
    """
    ragimpute merge \\
        ${vcfs} \\
        ${args} \\
        --threads ${task.cpus} \\
        --output ${prefix}.${suffix}
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}.merged"
    """
    echo "" | gzip > ${prefix}.${suffix}
    touch ${prefix}.${suffix}.tbi
    """
}
