#!/usr/bin/env nextflow

// Imputes a cohort: a row of the sheet for each contig, a job for each chunk and batch of samples, joined to
// a file for each contig.
//
// nextflow run workflow/nextflow --sheet sheet.csv --outdir results
//
// sheet.csv: contig,target,target_index,panel,panel_index,map

include { RAGIMPUTE_PREPARE } from './modules/ragimpute/prepare/main'
include { RAGIMPUTE_INDEX   } from './modules/ragimpute/index/main'
include { RAGIMPUTE_PLAN    } from './modules/ragimpute/plan/main'
include { RAGIMPUTE_IMPUTE  } from './modules/ragimpute/impute/main'
include { RAGIMPUTE_MERGE   } from './modules/ragimpute/merge/main'
include { RAGIMPUTE_CONCAT  } from './modules/ragimpute/concat/main'

workflow {
    ch_rows = channel
        .fromPath(params.sheet, checkIfExists: true)
        .splitCsv(header: true)

    // The panel of each contig, prepared once
    ch_panel = ch_rows.map { row -> [[id: row.contig], file(row.panel), file(row.panel_index), file(row.map), []] }
    RAGIMPUTE_PREPARE(ch_panel)

    ch_prepared = RAGIMPUTE_PREPARE.out.panel

    // A job for each chunk and batch
    ch_target = ch_rows.map { row -> [[id: row.contig], file(row.target), file(row.target_index)] }
    RAGIMPUTE_PLAN(ch_prepared.join(ch_target))

    ch_plans = RAGIMPUTE_PLAN.out.jobs
        .join(RAGIMPUTE_PLAN.out.batches)
        .join(ch_prepared)
        .join(ch_target)

    // What all batches of a chunk need of the panel and the array, made once
    // Reads of low coverage may be at any site, so there is no array that could be indexed
    def with_index = params.index && !params.low_coverage
    ch_index = channel.empty()
    if (with_index) {
        ch_regions = ch_plans.flatMap { meta, table, _batches, panel, target, target_index ->
            def regions = table.splitCsv(header: true, sep: '\t').collect { row -> row.region }.unique()
            regions.withIndex().collect { region, number -> [[id: "${meta.id}_${number + 1}"], panel, target, target_index, region] }
        }
        RAGIMPUTE_INDEX(ch_regions)
        ch_index = RAGIMPUTE_INDEX.out.index
    }

    ch_pairs = ch_plans.flatMap { meta, table, batches, panel, target, target_index ->
            def rows = table.splitCsv(header: true, sep: '\t')
            def regions = rows.collect { row -> row.region }.unique()
            def num_batches = rows.size().intdiv(regions.size())
            rows.collect { row ->
                def chunk = regions.indexOf(row.region) + 1
                def job = [
                    id: "${meta.id}_${chunk}_${row.batch}",
                    contig: meta.id,
                    chunk: chunk,
                    num_chunks: regions.size(),
                    batch: row.batch.toInteger(),
                    num_batches: num_batches,
                    memory_mb: row.memory_mb.toInteger(),
                ]
                [[id: "${meta.id}_${chunk}"], job, target, target_index, batches.resolve("${row.batch}.txt"), panel, row.region]
            }
        }
    ch_with_index = with_index ? ch_pairs.combine(ch_index, by: 0) : ch_pairs.map { pair -> pair + [[]] }
    ch_jobs = ch_with_index.map { _chunk, job, target, target_index, samples, panel, region, index ->
        [job, target, target_index, samples, panel, index, region]
    }
    RAGIMPUTE_IMPUTE(ch_jobs, params.suffix)

    // The batches of a chunk in the order of the samples; a single batch needs no merging
    ch_chunks = RAGIMPUTE_IMPUTE.out.vcf
        .map { meta, vcf ->
            def chunk = [id: "${meta.contig}_${meta.chunk}", contig: meta.contig, chunk: meta.chunk, num_chunks: meta.num_chunks]
            [groupKey(chunk, meta.num_batches), [meta.batch, vcf]]
        }
        .groupTuple()
        .map { key, parts -> [key.getGroupTarget(), parts.sort { part -> part[0] }.collect { part -> part[1] }] }
        .branch { _meta, vcfs ->
            one: vcfs.size() == 1
            several: true
        }
    RAGIMPUTE_MERGE(ch_chunks.several, params.suffix)

    // The chunks of a contig in order
    ch_contigs = RAGIMPUTE_MERGE.out.vcf
        .mix(ch_chunks.one.map { meta, vcfs -> [meta, vcfs[0]] })
        .map { meta, vcf -> [groupKey([id: meta.contig], meta.num_chunks), [meta.chunk, vcf]] }
        .groupTuple()
        .map { key, parts -> [key.getGroupTarget(), parts.sort { part -> part[0] }.collect { part -> part[1] }] }
    RAGIMPUTE_CONCAT(ch_contigs, params.suffix)

    // The versions of all programs, from the topic that every module writes to
    channel.topic('versions')
        .unique()
        .map { process, tool, version -> "${process}:\n    ${tool}: ${version}\n" }
        .collectFile(name: 'versions.yml', storeDir: params.outdir, sort: true)
}
