version 1.0

import "tasks.wdl" as ragimpute

# The panel of one contig: either a prepared panel.h5, or the phased VCF/BCF, its index and the genetic map that it is
# prepared from.
struct ContigPanel {
  String contig
  File? panel_h5
  File? panel_vcf
  File? panel_vcf_index
  File? genetic_map
}

workflow Impute {
  meta {
    description: "Imputes a cohort: chunks of 25 Mb, batches of 1,000 samples, a job for each pair, joined to a file for each contig."
  }

  parameter_meta {
    panels: "One panel for each contig to impute"
    target: "VCF/BCF to impute, of all contigs"
    target_index: "Index of target (.tbi or .csi)"
    name: "Output files are named NAME.CONTIG.vcf.gz"
    chunk_mb: "Length of the longest chunk, Mb"
    samples_per_batch: "Most samples in a batch"
    model: "Name of a shipped model"
    format: "FORMAT fields to write"
    prepare_options: "More options of ragimpute prepare"
    impute_options: "More options of ragimpute impute"
    with_index: "Whether all batches of a chunk share what depends on the panel and the array alone"
    index_options: "Those of impute_options that change what is fitted, and where windows are"
    low_coverage: "Whether the target has genotype likelihoods (PL, GL or GP) of shallow sequencing, to impute from; no index is made then"
    docker: "Image of ragimpute, as your registry names it"
    impute_cpu: "Cores of a job that imputes"
    preemptible: "How often a machine is tried that the cloud may take back"
    max_retries: "How often a task is tried again after it failed"
  }

  input {
    Array[ContigPanel]+ panels
    File target
    File target_index
    String name = "imputed"
    Float chunk_mb = 25.0
    Int samples_per_batch = 1000
    String model = "default"
    String format = "GT,DS,GP"
    String prepare_options = ""
    String impute_options = ""
    Boolean with_index = true
    String index_options = ""
    Boolean low_coverage = false
    String docker = "ragimpute:0.1.0"
    Int impute_cpu = 2
    Int preemptible = 2
    Int max_retries = 1
  }

  scatter (given in panels) {
    String named = "~{name}.~{given.contig}"

    if (!defined(given.panel_h5)) {
      call ragimpute.Prepare {
        input:
          panel_vcf = select_first([given.panel_vcf]),
          panel_vcf_index = select_first([given.panel_vcf_index]),
          genetic_map = select_first([given.genetic_map]),
          name = "panel.~{given.contig}",
          extra_options = prepare_options,
          docker = docker,
          preemptible = preemptible,
          max_retries = max_retries
      }
    }
    File panel = select_first([given.panel_h5, Prepare.panel])

    call ragimpute.Plan {
      input:
        panel = panel,
        target = target,
        target_index = target_index,
        chunk_mb = chunk_mb,
        samples_per_batch = samples_per_batch,
        docker = docker,
        preemptible = preemptible,
        max_retries = max_retries
    }

    scatter (chunk in range(length(Plan.chunks))) {
      if (with_index && !low_coverage) {
        call ragimpute.Index {
          input:
            panel = panel,
            target = target,
            target_index = target_index,
            region = Plan.chunks[chunk][0],
            memory_mb = Plan.chunks[chunk][1],
            name = "~{named}.chunk-~{chunk + 1}",
            model = model,
            extra_options = index_options,
            docker = docker,
            cpu = impute_cpu,
            preemptible = preemptible,
            max_retries = max_retries
        }
      }

      scatter (batch in range(length(Plan.batches))) {
        call ragimpute.Impute as ImputeBatch {
          input:
            panel = panel,
            target = target,
            target_index = target_index,
            samples = Plan.batches[batch],
            region = Plan.chunks[chunk][0],
            memory_mb = Plan.chunks[chunk][1],
            index = Index.index,
            name = "~{named}.chunk-~{chunk + 1}.batch-~{batch + 1}",
            model = model,
            format = format,
            extra_options = (if low_coverage then "--likelihoods always " else "") + impute_options,
            docker = docker,
            cpu = impute_cpu,
            preemptible = preemptible,
            max_retries = max_retries
        }
      }

      if (length(Plan.batches) > 1) {
        call ragimpute.Merge {
          input:
            batches = ImputeBatch.imputed,
            name = "~{named}.chunk-~{chunk + 1}",
            docker = docker,
            preemptible = preemptible,
            max_retries = max_retries
        }
      }
      File of_all_samples = select_first([Merge.merged, ImputeBatch.imputed[0]])
    }

    call ragimpute.Concat {
      input:
        chunks = of_all_samples,
        name = named,
        docker = docker,
        preemptible = preemptible,
        max_retries = max_retries
    }
  }

  output {
    Array[File] imputed = Concat.imputed
    Array[File] imputed_indexes = Concat.imputed_index
    Array[File] sites = Concat.sites
    Array[File] prepared_panels = panel
    Array[File] reports = flatten(flatten(ImputeBatch.report))
    Array[File] multiqc = flatten(flatten(ImputeBatch.multiqc))
  }
}
