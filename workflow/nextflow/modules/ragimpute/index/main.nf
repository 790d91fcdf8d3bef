process RAGIMPUTE_INDEX {
    tag "${meta.id}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container 'ragimpute:0.1.0'

    input:
    tuple val(meta), path(panel), path(sites)

    output:
    tuple val(meta), path("*.index"), emit: index
    path "versions.yml", emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ""
    def prefix = task.ext.prefix ?: "${meta.id}"
    def sites_cmd = sites ? "--typed-sites ${sites}" : ""
    """
    ragimpute index \\
        ${panel} \\
        ${sites_cmd} \\
        ${args} \\
        --output ${prefix}.index

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        ragimpute: \$(ragimpute --version | sed 's/ragimpute //')
    END_VERSIONS
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir ${prefix}.index

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        ragimpute: \$(ragimpute --version | sed 's/ragimpute //')
    END_VERSIONS
    """
}
