process RAGIMPUTE_CONCAT {
    tag "${meta.id}"
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container "${workflow.containerEngine in ['singularity', 'apptainer'] && !task.ext.singularity_pull_docker_container
        ? 'docker-daemon://ragimpute:0.1.0'
        : 'ragimpute:0.1.0'}"

    input:
    tuple val(meta), path(vcfs)
    val suffix

    output:
    tuple val(meta), path("*.{vcf.gz,bcf}"), emit: vcf
    tuple val(meta), path("*.{tbi,csi}"), emit: index
    tuple val("${task.process}"), val('bcftools'), eval('bcftools --version | sed -n "1s/bcftools //p"'), topic: versions, emit: versions_bcftools

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ""
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    bcftools concat --naive ${args} --output ${prefix}.${suffix} ${vcfs}
    bcftools index --force ${prefix}.${suffix}
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    echo "" | gzip > ${prefix}.${suffix}
    touch ${prefix}.${suffix}.csi
    """
}
