process RAGIMPUTE_IMPUTE {
    tag "${meta.id}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "${workflow.containerEngine in ['singularity', 'apptainer'] && !task.ext.singularity_pull_docker_container
        ? 'docker-daemon://ragimpute:0.1.0'
        : 'ragimpute:0.1.0'}"

    input:
    tuple val(meta), path(target_vcf), path(target_index), path(samples_file), path(panel), path(panel_index), val(region)
    val suffix

    output:
    tuple val(meta), path("*.{vcf,vcf.gz,bcf}"), emit: vcf
    tuple val(meta), path("*.{tbi,csi}"), emit: index, optional: true
    tuple val(meta), path("*.html"), emit: report
    tuple val(meta), path("*_mqc.json"), emit: multiqc
    tuple val("${task.process}"), val('ragimpute'), eval('ragimpute --version | sed "s/ragimpute //"'), topic: versions, emit: versions_ragimpute

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ""
    def prefix = task.ext.prefix ?: "${meta.id}.imputed"
    def index_cmd = panel_index ? "--index ${panel_index}" : ""
    def samples_cmd = samples_file ? "--samples-file ${samples_file}" : ""
    def region_cmd = region ? "--region '${region}'" : ""
    """
    ragimpute impute \\
        ${target_vcf} \\
        --panel ${panel} \\
        ${index_cmd} \\
        ${samples_cmd} \\
        ${region_cmd} \\
        ${args} \\
        --threads ${task.cpus} \\
        --report ${prefix}.html \\
        --report ${prefix}_mqc.json \\
        --output ${prefix}.${suffix}
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}.imputed"
    """
    echo "" | gzip > ${prefix}.${suffix}
    touch ${prefix}.${suffix}.tbi ${prefix}.html ${prefix}_mqc.json
    """
}
