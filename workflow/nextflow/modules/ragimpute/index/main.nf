process RAGIMPUTE_INDEX {
    tag "${meta.id}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "${workflow.containerEngine in ['singularity', 'apptainer'] && !task.ext.singularity_pull_docker_container
        ? 'docker-daemon://ragimpute:0.1.0'
        : 'ragimpute:0.1.0'}"

    input:
    tuple val(meta), path(panel), path(sites), path(sites_index), val(region)

    output:
    tuple val(meta), path("*.index"), emit: index
    tuple val("${task.process}"), val('ragimpute'), eval('ragimpute --version | sed "s/ragimpute //"'), topic: versions, emit: versions_ragimpute

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ""
    def prefix = task.ext.prefix ?: "${meta.id}"
    def sites_cmd = sites ? "--typed-sites ${sites}" : ""
    def region_cmd = region ? "--region '${region}'" : ""
    """
    ragimpute index \\
        ${panel} \\
        ${sites_cmd} \\
        ${args} \\
        --output ${prefix}.index
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir ${prefix}.index
    """
}
