version 1.0

# Tasks of ragimpute: each calls one command of it. impute.wdl calls them; other workflows may import this file.
#
# Memory is in MiB; minutes and prices depend on the machines, so no task states a time. "preemptible" is how often a
# machine is tried that the cloud may take back, "max_retries" how often a task is tried again after it failed.
#
# Indexes are copied beside their files, since an index that is older than its file is not used, and runners bring files
# to a machine in any order.

task Prepare {
  meta {
    description: "Turns a phased panel of one contig and a genetic map into panel.h5."
  }

  parameter_meta {
    panel_vcf: "Phased VCF/BCF of one contig"
    panel_vcf_index: "Index of panel_vcf (.tbi or .csi)"
    genetic_map: "Genetic map in PLINK, SHAPEIT or Eagle columns"
    name: "Name of the file that is written, without .h5"
    extra_options: "More options of ragimpute prepare, as one would type them"
  }

  input {
    File panel_vcf
    File panel_vcf_index
    File genetic_map
    String name
    String extra_options = ""
    String docker = "ragimpute:0.1.0"
    Int cpu = 2
    Int memory_mb = 2048
    Int disk_gb = ceil(size(panel_vcf, "GiB") * 2) + 10
    Int preemptible = 2
    Int max_retries = 1
  }

  command <<<
    set -euo pipefail
    ln -s '~{panel_vcf}' '~{basename(panel_vcf)}'
    cp '~{panel_vcf_index}' '~{basename(panel_vcf_index)}'
    ragimpute prepare '~{basename(panel_vcf)}' --map '~{genetic_map}' -o '~{name}.h5' \
      --threads ~{cpu} --quiet ~{extra_options}
  >>>

  output {
    File panel = "~{name}.h5"
  }

  runtime {
    docker: docker
    cpu: cpu
    memory: "~{memory_mb} MiB"
    disks: "local-disk ~{disk_gb} HDD"
    preemptible: preemptible
    maxRetries: max_retries
  }
}

task Plan {
  meta {
    description: "Cuts the panel into chunks, with the memory that each needs, and the target's samples into batches."
  }

  parameter_meta {
    panel: "Made by Prepare"
    target: "VCF/BCF whose samples are put into batches"
    target_index: "Index of target; it says how many sites are typed, on which the memory depends"
    chunk_mb: "Length of the longest chunk, Mb"
    samples_per_batch: "Most samples in a batch"
  }

  input {
    File panel
    File target
    File target_index
    Float chunk_mb = 25.0
    Int samples_per_batch = 1000
    String docker = "ragimpute:0.1.0"
    Int cpu = 1
    Int memory_mb = 1024
    Int disk_gb = ceil(size(panel, "GiB") + size(target, "GiB")) + 10
    Int preemptible = 2
    Int max_retries = 1
  }

  command <<<
    set -euo pipefail
    ln -s '~{target}' '~{basename(target)}'
    cp '~{target_index}' '~{basename(target_index)}'
    ragimpute plan '~{panel}' '~{basename(target)}' --chunk-mb ~{chunk_mb} \
      --samples-per-batch ~{samples_per_batch} --batch-dir numbered > jobs.tsv
    # The region and memory_mb of the first batch's jobs, found by the names of their columns
    awk -F '\t' 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
      $column["batch"] == 1 { print $column["region"] "\t" $column["memory_mb"] }' jobs.tsv > chunks.tsv
    # 1.txt, 2.txt ... 10.txt, named so that they sort in the order of the samples
    mkdir batches
    for file in numbered/*.txt; do
      number=$(basename "$file" .txt)
      mv "$file" "$(printf 'batches/%05d.txt' "$number")"
    done
  >>>

  output {
    Array[Array[String]] chunks = read_tsv("chunks.tsv")
    Array[File] batches = glob("batches/*.txt")
  }

  runtime {
    docker: docker
    cpu: cpu
    memory: "~{memory_mb} MiB"
    disks: "local-disk ~{disk_gb} HDD"
    preemptible: preemptible
    maxRetries: max_retries
  }
}

task Index {
  meta {
    description: "Makes once what all batches of a chunk need of the panel and the array."
  }

  parameter_meta {
    panel: "Made by Prepare"
    target: "VCF/BCF of the sites that the array types, such as the target"
    target_index: "Index of target (.tbi or .csi)"
    region: "CONTIG:START-STOP of the chunk, made by Plan"
    memory_mb: "What Plan says of the chunk, MiB"
    name: "Name of the archive that is written, without .tar"
    model: "Name of a shipped model"
    extra_options: "Those of the options of ragimpute impute that change what is fitted, and where windows are"
  }

  input {
    File panel
    File target
    File target_index
    String region
    String memory_mb
    String name
    String model = "default"
    String extra_options = ""
    String docker = "ragimpute:0.1.0"
    Int cpu = 2
    Int disk_gb = ceil(size(panel, "GiB") * 40 + size(target, "GiB")) + 20
    Int preemptible = 2
    Int max_retries = 1
  }

  command <<<
    set -euo pipefail
    ln -s '~{panel}' '~{basename(panel)}'
    ln -s '~{target}' '~{basename(target)}'
    cp '~{target_index}' '~{basename(target_index)}'
    ragimpute index '~{basename(panel)}' --typed-sites '~{basename(target)}' --model '~{model}' \
      --region '~{region}' -o panel.index --threads ~{cpu} --quiet ~{extra_options}
    tar -cf '~{name}.tar' panel.index
  >>>

  output {
    File index = "~{name}.tar"
  }

  runtime {
    docker: docker
    cpu: cpu
    memory: "~{memory_mb} MiB"
    disks: "local-disk ~{disk_gb} HDD"
    preemptible: preemptible
    maxRetries: max_retries
  }
}

task Impute {
  meta {
    description: "Imputes one batch of samples in one chunk."
  }

  parameter_meta {
    panel: "Made by Prepare"
    target: "VCF/BCF to impute, with all samples"
    target_index: "Index of target (.tbi or .csi)"
    samples: "Samples of the batch, one a line, made by Plan"
    region: "CONTIG:START-STOP of the chunk, made by Plan"
    memory_mb: "What Plan says of the chunk, MiB"
    index: "Made by Index for the chunk"
    name: "Name of the files that are written, without their suffixes"
    model: "Name of a shipped model"
    format: "FORMAT fields to write"
    extra_options: "More options of ragimpute impute, as one would type them"
  }

  input {
    File panel
    File target
    File target_index
    File samples
    String region
    String memory_mb
    File? index
    String name
    String model = "default"
    String format = "GT,DS,GP"
    String extra_options = ""
    String docker = "ragimpute:0.1.0"
    Int cpu = 2
    Int disk_gb = ceil(size(panel, "GiB") + size(target, "GiB") * 2 + size(index, "GiB") * 2) + 20
    Int preemptible = 2
    Int max_retries = 1
  }

  # The links have the same names in every chunk: the command is in the header, and only files with the
  # same header are joined without being decompressed.
  command <<<
    set -euo pipefail
    ln -s '~{panel}' '~{basename(panel)}'
    ln -s '~{target}' '~{basename(target)}'
    cp '~{target_index}' '~{basename(target_index)}'
    ln -s '~{samples}' samples.txt
    ~{"tar -xf '" + index + "'"}
    ragimpute impute '~{basename(target)}' --panel '~{basename(panel)}' --model '~{model}' \
      ~{if defined(index) then "--index panel.index" else ""} \
      --region '~{region}' --samples-file samples.txt --format ~{format} -o '~{name}.vcf.gz' \
      --report '~{name}.html' --report '~{name}_mqc.json' --threads ~{cpu} --quiet ~{extra_options}
  >>>

  output {
    File imputed = "~{name}.vcf.gz"
    File report = "~{name}.html"
    File multiqc = "~{name}_mqc.json"
  }

  runtime {
    docker: docker
    cpu: cpu
    memory: "~{memory_mb} MiB"
    disks: "local-disk ~{disk_gb} HDD"
    preemptible: preemptible
    maxRetries: max_retries
  }
}

task Merge {
  meta {
    description: "Joins the batches of a chunk. AF and DR2 of all samples are computed from sums in INFO."
  }

  parameter_meta {
    batches: "Imputed files of one chunk, in the order of the samples"
    name: "Name of the file that is written, without .vcf.gz"
  }

  input {
    Array[File] batches
    String name
    String docker = "ragimpute:0.1.0"
    Int cpu = 2
    Int memory_mb = 2048 + 64 * length(batches)
    Int disk_gb = ceil(size(batches, "GiB") * 2.5) + 20
    Int preemptible = 2
    Int max_retries = 1
  }

  command <<<
    set -euo pipefail
    number=0
    while IFS= read -r file; do
      number=$((number + 1))
      ln -s "$file" "$(printf 'batch-%05d.vcf.gz' "$number")"
    done < '~{write_lines(batches)}'
    ragimpute merge batch-*.vcf.gz -o '~{name}.vcf.gz' --threads ~{cpu} --quiet
  >>>

  output {
    File merged = "~{name}.vcf.gz"
  }

  runtime {
    docker: docker
    cpu: cpu
    memory: "~{memory_mb} MiB"
    disks: "local-disk ~{disk_gb} HDD"
    preemptible: preemptible
    maxRetries: max_retries
  }
}

task Concat {
  meta {
    description: "Joins the chunks of a contig without decompressing them, and indexes the result."
  }

  parameter_meta {
    chunks: "Imputed files of all samples, in the order of the contig"
    name: "Name of the file that is written, without .vcf.gz"
  }

  input {
    Array[File] chunks
    String name
    String docker = "ragimpute:0.1.0"
    Int cpu = 1
    Int memory_mb = 1024
    Int disk_gb = ceil(size(chunks, "GiB") * 2.5) + 20
    Int preemptible = 2
    Int max_retries = 1
  }

  command <<<
    set -euo pipefail
    bcftools concat --naive --file-list '~{write_lines(chunks)}' -o '~{name}.vcf.gz'
    bcftools index --tbi '~{name}.vcf.gz'
    bcftools view --no-version --drop-genotypes -Oz -o '~{name}.sites.vcf.gz' '~{name}.vcf.gz'
  >>>

  output {
    File imputed = "~{name}.vcf.gz"
    File imputed_index = "~{name}.vcf.gz.tbi"
    File sites = "~{name}.sites.vcf.gz"
  }

  runtime {
    docker: docker
    cpu: cpu
    memory: "~{memory_mb} MiB"
    disks: "local-disk ~{disk_gb} HDD"
    preemptible: preemptible
    maxRetries: max_retries
  }
}
