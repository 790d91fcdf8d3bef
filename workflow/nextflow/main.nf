#!/usr/bin/env nextflow

// Prepare each contig's panel once, index it, and impute the target: a row of the sheet each.
//
// nextflow run workflow/nextflow --sheet sheet.csv --outdir results
//
// sheet.csv: contig,target,target_index,panel,panel_index,map,region  (region may be empty)

include { RAGIMPUTE_PREPARE } from './modules/ragimpute/prepare/main'
include { RAGIMPUTE_INDEX   } from './modules/ragimpute/index/main'
include { RAGIMPUTE_IMPUTE  } from './modules/ragimpute/impute/main'

workflow {
    ch_rows = Channel
        .fromPath(params.sheet, checkIfExists: true)
        .splitCsv(header: true)

    ch_panel = ch_rows
        .map { row -> [[id: row.contig], file(row.panel), file(row.panel_index), file(row.map), []] }
        .unique { row -> row[0].id }
    RAGIMPUTE_PREPARE(ch_panel)

    ch_prepared = RAGIMPUTE_PREPARE.out.panel
    if (params.index) {
        RAGIMPUTE_INDEX(ch_prepared.map { meta, panel -> [meta, panel, []] })
        ch_ready = ch_prepared.join(RAGIMPUTE_INDEX.out.index)
    } else {
        ch_ready = ch_prepared.map { meta, panel -> [meta, panel, []] }
    }

    ch_target = ch_rows.map { row ->
        def id = row.region ? row.region.replaceAll(/[:-]/, '_') : row.contig
        [row.contig, id, file(row.target), file(row.target_index), row.region ?: '']
    }
    ch_jobs = ch_target
        .combine(ch_ready.map { meta, panel, index -> [meta.id, panel, index] }, by: 0)
        .map { contig, id, target, target_index, region, panel, index ->
            [[id: id, contig: contig], target, target_index, [], panel, index, region]
        }
    RAGIMPUTE_IMPUTE(ch_jobs)
}
