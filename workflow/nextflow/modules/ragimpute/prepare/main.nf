process RAGIMPUTE_PREPARE {
    tag "${meta.id}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "${workflow.containerEngine in ['singularity', 'apptainer'] && !task.ext.singularity_pull_docker_container
        ? 'docker-daemon://ragimpute:0.1.0'
        : 'ragimpute:0.1.0'}"

    input:
    tuple val(meta), path(vcf), path(vcf_index), path(map), path(populations)

    output:
    tuple val(meta), path("*.h5"), emit: panel
    tuple val("${task.process}"), val('ragimpute'), eval('ragimpute --version | sed "s/ragimpute //"'), topic: versions, emit: versions_ragimpute

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ""
    def prefix = task.ext.prefix ?: "${meta.id}"
    def map_cmd = map ? "--map ${map}" : ""
    def populations_cmd = populations ? "--populations ${populations}" : ""
    """
    ragimpute prepare \\
        ${vcf} \\
        ${map_cmd} \\
        ${populations_cmd} \\
        ${args} \\
        --threads ${task.cpus} \\
        --output ${prefix}.h5
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.h5
    """
}
