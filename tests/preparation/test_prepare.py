"""prepare: the packaged example and odd inputs, from file to panel."""

from __future__ import annotations

import gzip
import os
from itertools import chain

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vcf_fixtures import convert, vcf_text

from ragimpute import example
from ragimpute.errors import InputError, PanelError
from ragimpute.io.vcf.read.genotypes import PanelStream
from ragimpute.panel.reader import Panel
from ragimpute.preparation.allel_hdf5 import AllelReader
from ragimpute.preparation.genetic_map import GeneticMap
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.preparation.populations import read_populations
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region
from tests.preparation.test_allel_hdf5 import write_call_set

MAP = "chr20.b37.gmap.gz"


def write_vcf(path, rows, samples=("a", "b"), contigs=("20",)):
    """A VCF of ``rows``: (contig, position, ref, alt, genotypes)."""
    lines = ["##fileformat=VCFv4.2"]
    lines += [f"##contig=<ID={contig}>" for contig in contigs]
    lines += ['##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">']
    fixed = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    lines.append("\t".join([*fixed, *samples]))
    for contig, position, ref, alt, *genotypes in rows:
        fixed = [contig, str(position), ".", ref, alt, ".", ".", ".", "GT"]
        lines.append("\t".join(fixed + genotypes))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The example's panel."""
    out = tmp_path_factory.mktemp("prepared") / "panel.h5"
    calls = []
    summary = prepare(
        example.path("panel.bcf"),
        out,
        genetic_map=example.path(MAP),
        progress=lambda *call: calls.append(call),
    )
    return out, summary, calls


def test_example_round_trip(prepared):
    out, summary, calls = prepared
    with Panel.open(out) as panel:
        stream = PanelStream(example.path("panel.bcf"))
        batches = list(stream)
        alleles = np.concatenate([batch.alleles for batch in batches]).reshape(panel.num_sites, -1)
        np.testing.assert_array_equal(panel.haplotypes(0, panel.num_sites).alleles(), alleles)
        assert panel.samples == stream.samples
        assert panel.sites.keys() == list(
            chain.from_iterable(batch.sites.keys() for batch in batches)
        )
        assert panel.contig_length == 63_025_520
        assert (panel.num_sites, panel.num_haplotypes) == (6_127, 500)
        assert 1.0 < np.ptp(panel.position_cm) < 6.0
        np.testing.assert_array_equal(panel.alt_count, alleles.sum(axis=1))
        panel.verify()
    assert summary.panel.num_sites == 6_127
    assert summary.panel.num_bytes == os.path.getsize(out)
    assert summary.panel.dropped == {}
    assert summary.warnings == []
    assert summary.source_kind == "VCF/BCF"
    assert summary.genetic_map == MAP
    stages = [stage for stage, _, _ in calls]
    done = [count for _, count, _ in calls]
    assert set(stages) == {"prepare"}
    assert done == sorted(done)
    assert calls[-1][1] == calls[-1][2]


def test_a_panel_whose_ploidy_changes_is_read_again_in_stages_of_their_own(tmp_path):
    """X goes through a first reading for males; another contig only if its ploidy changes."""
    for contig, expected in (
        ("20", ["prepare", "find changes of ploidy", "prepare"]),
        ("X", ["find males", "prepare"]),
    ):
        path, calls = tmp_path / f"{contig}.vcf", []
        rows = [(contig, 10 * i, "A", "C", "0|1", "1|0" if i < 9 else "1") for i in range(1, 30)]
        path.write_text(vcf_text(rows, contigs=(contig,)))
        prepare(
            path, path.with_suffix(".h5"), cm_per_mb=1.0,
            progress=lambda *call, calls=calls: calls.append(call),
        )  # fmt: skip
        assert [stage for stage, done, _ in calls if done == 0] == expected
        assert [stage for stage, done, total in calls if 0 < total <= done] == expected


def test_region_is_a_slice(prepared, tmp_path):
    whole, _, _ = prepared
    region = Region.parse("chr20:2300000-2500000")
    part = tmp_path / "part.h5"
    prepare(example.path("panel.bcf"), part, genetic_map=example.path(MAP), region=region)
    with Panel.open(whole) as panel, Panel.open(part) as other:
        start, stop = panel.site_range(region)
        assert other.num_sites == stop - start > 500
        assert other.sites.keys() == panel.sites.take(slice(start, stop)).keys()
        np.testing.assert_array_equal(
            other.haplotypes(0, other.num_sites).alleles(), panel.haplotypes(start, stop).alleles()
        )
        np.testing.assert_array_equal(other.position_cm, panel.position_cm[start:stop])
        assert panel.checksum != other.checksum


def test_populations_and_threads_do_not_change_haplotypes(prepared, tmp_path):
    whole, _, _ = prepared
    with Panel.open(whole) as panel:
        samples = panel.samples
        table = tmp_path / "pops.txt"
        rows = [f"{name} {name[:2]} EUR female" for name in [*samples, "extra"]]
        table.write_text("\n".join(["sample pop super_pop gender", *rows]) + "\n")
        out = tmp_path / "p.h5"
        summary = prepare(
            example.path("panel.bcf"),
            out,
            genetic_map=GeneticMap.read(example.path(MAP)),
            populations=table,
            threads=2,
        )
        assert "1 samples that the panel lacks: extra" in summary.warnings[0]
        with Panel.open(out) as other:
            assert other.populations == ["HG", "NA"]
            sizes = np.bincount(other.population)[:, None]
            weighted = (other.af_population(0, 6_127) * sizes).sum(axis=0) / sizes.sum()
            np.testing.assert_allclose(weighted, panel.af, atol=1e-6)
            np.testing.assert_array_equal(
                other.haplotypes(0, 999).alleles(), panel.haplotypes(0, 999).alleles()
            )


def test_without_a_map(tmp_path):
    source = write_vcf(tmp_path / "x.vcf", [("20", 1_000_000, "A", "G", "0|1", "1|1")])
    summary = prepare(source, tmp_path / "p.h5")
    assert "1 cM/Mb is assumed" in summary.warnings[0]
    summary = prepare(source, tmp_path / "p.h5", cm_per_mb=2.5, force=True)
    assert summary.warnings == []
    np.testing.assert_allclose(Panel.open(tmp_path / "p.h5").position_cm, [2.5])
    with pytest.raises(InputError, match="both a genetic map and --cm-per-mb"):
        prepare(source, tmp_path / "q.h5", cm_per_mb=1.0, genetic_map=example.path(MAP))


def test_map_of_another_place(tmp_path):
    source = write_vcf(tmp_path / "x.vcf", [("20", 9_000_000, "A", "G", "0|1", "1|1")])
    summary = prepare(source, tmp_path / "p.h5", genetic_map=example.path(MAP))
    assert "no site lies within the genetic map" in summary.warnings[0]


def test_design7_3_multiallelic_duplicate_and_symbolic_records(tmp_path):
    rows = [
        ("20", 10, "A", "G,T", "0|1", "2|1"),
        ("20", 10, "A", "G", "1|1", "1|1"),
        ("20", 20, "C", "<NON_REF>", "0|1", "0|0"),
        ("20", 25, "C", "<DEL>", "0|1", "1|0"),
        ("20", 30, "C", "C", "0|1", "0|0"),
        ("20", 40, "C", "CT", "0|1", "0|0"),
    ]
    source = write_vcf(tmp_path / "x.vcf", rows)
    summary = prepare(source, tmp_path / "p.h5", cm_per_mb=1)
    panel = Panel.open(tmp_path / "p.h5")
    kept = [(10, "A", "G"), (10, "A", "T"), (25, "C", "<DEL>"), (40, "C", "CT")]
    assert panel.sites.keys() == kept
    expected = [[0, 1, 0, 1], [0, 0, 1, 0], [0, 1, 1, 0], [0, 1, 0, 0]]
    np.testing.assert_array_equal(panel.haplotypes(0, 4).alleles(), expected)
    assert summary.panel.dropped["duplicate"] == 1
    assert summary.panel.dropped["no_allele"] == 1
    assert any("20:20:C:<NON_REF>" in line for line in summary.warnings)


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        ("0/1", "1 unphased heterozygotes (20:20 in b)"),
        ("./.", "1 missing genotypes (20:20 in b)"),
        (".|1", "1 missing genotypes (20:20 in b)"),
    ],
)
def test_incomplete_panels(tmp_path, genotype, message):
    rows = [("20", 10, "A", "G", "0|1", "0|0"), ("20", 20, "A", "G", "0|1", genotype)]
    source = write_vcf(tmp_path / "x.vcf", rows)
    with pytest.raises(PanelError) as caught:
        prepare(source, tmp_path / "p.h5", cm_per_mb=1)
    assert message in caught.value.message
    assert os.listdir(tmp_path) == ["x.vcf"]


def test_unsorted(tmp_path):
    rows = [("20", 20, "A", "G", "0|1", "0|0"), ("20", 10, "A", "G", "0|1", "0|0")]
    source = write_vcf(tmp_path / "x.vcf", rows)
    with pytest.raises(PanelError, match="1 unsorted sites"):
        prepare(source, tmp_path / "p.h5", cm_per_mb=1)


def test_males_on_x(tmp_path):
    rows = [("X", p, "A", "G", "0|1", "1", "1|1") for p in (10, 20, 30)]
    source = write_vcf(tmp_path / "x.vcf", rows, samples=("f", "m", "d"), contigs=("X",))
    summary = prepare(source, tmp_path / "p.h5", cm_per_mb=1)
    panel = Panel.open(tmp_path / "p.h5")
    assert panel.haplotype_sample.tolist() == [0, 0, 1, 2, 2]
    np.testing.assert_array_equal(panel.haplotypes(0, 1).alleles(), [[0, 1, 1, 1, 1]])
    assert summary.panel.haploid_samples == ["m"]
    assert "1 samples have no heterozygote on X (d)" in summary.warnings[0]


def test_several_contigs(tmp_path):
    rows = [("20", 10, "A", "G", "0|1", "0|0"), ("21", 10, "A", "G", "0|1", "1|1")]
    source = write_vcf(tmp_path / "x.vcf", rows, contigs=("20", "21"))
    with pytest.raises(InputError, match=r"2 contigs \(20, 21\)"):
        prepare(source, tmp_path / "p.h5", cm_per_mb=1)
    with pytest.raises(InputError, match="contig 22; it holds 20, 21"):
        prepare(source, tmp_path / "p.h5", cm_per_mb=1, region=Region("22"))


def test_outputs_that_are_in_the_way(tmp_path):
    source = write_vcf(tmp_path / "x.vcf", [("20", 10, "A", "G", "0|1", "0|0")])
    link = tmp_path / "link.h5"
    link.symlink_to(source)
    for out in (source, link):
        with pytest.raises(InputError, match="also the panel input"):
            prepare(source, out, cm_per_mb=1, force=True)
    gmap = tmp_path / "map"
    gmap.write_text("20 . 0 1\n20 . 1 9\n")
    with pytest.raises(InputError, match="also the map input"):
        prepare(source, gmap, genetic_map=gmap, force=True)
    with pytest.raises(InputError, match="is a folder"):
        prepare(source, tmp_path, cm_per_mb=1)
    with pytest.raises(InputError, match=r"folder .*none does not exist"):
        prepare(source, tmp_path / "none" / "p.h5", cm_per_mb=1)
    with pytest.raises(InputError, match="exists") as caught:
        prepare(source, gmap, cm_per_mb=1)
    assert "--force" in caught.value.hint
    with pytest.raises(InputError, match="does not exist"):
        prepare(tmp_path / "none.vcf", tmp_path / "p.h5")


def test_scikit_allel(tmp_path):
    source = tmp_path / "x.h5"
    with h5py.File(source, "w") as file:
        write_call_set(file)
    summary = prepare(source, tmp_path / "p.h5", cm_per_mb=1)
    assert summary.source_kind == "scikit-allel HDF5"
    assert "no phase flag" in summary.warnings[0]
    assert "1 records left out that have no ALT" in summary.warnings[1]
    panel = Panel.open(tmp_path / "p.h5")
    assert panel.samples == ["a", "b", "c"]
    expected = [[0, 1, 0, 0, 1, 1], [0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]]
    np.testing.assert_array_equal(panel.haplotypes(0, 4).alleles(), expected)
    with pytest.raises(InputError, match="is a panel already"):
        prepare(tmp_path / "p.h5", tmp_path / "q.h5", cm_per_mb=1)


POPULATIONS = {
    "blanks": "a CEU\nb   YRI\n",
    "tabs": "a\tCEU\nb\tYRI\n",
    "1000 Genomes": "sample\tpop\tsuper_pop\tgender\t\t\na\tCEU\tEUR\tmale\nb\tYRI\tAFR\tfemale\n",
    "plink2": "#IID SEX SuperPop Population\na 1 EUR CEU\nb 2 AFR YRI\n",
    "one other header": "sample ancestry\na CEU\nb YRI\n",
    "byte order mark": "\ufeffa CEU\nb YRI\n",
}


@pytest.mark.parametrize("form", POPULATIONS)
def test_population_tables(tmp_path, form):
    path = tmp_path / "t"
    path.write_text(POPULATIONS[form], encoding="utf-8")
    assert read_populations(path, ["b", "a"]) == {"a": "CEU", "b": "YRI"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a CEU\nb\n", "line 2: expected a sample and its population, found 'b'"),
        ("a CEU\nb YRI\na YRI\n", "line 3: sample a is YRI here, but CEU above"),
        ("a CEU\nc YRI\n", "lacks 1 of 2 panel samples: b"),
        ("sample\na\n", "no column of populations"),
    ],
)
def test_population_tables_refused(tmp_path, text, message):
    path = tmp_path / "t"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_populations(path, ["a", "b"])
    assert message in caught.value.message


def test_population_table_unreadable(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_populations(tmp_path / "none", ["a"])
    path = tmp_path / "t.gz"
    path.write_bytes(gzip.compress(b"a CEU\n"))
    with pytest.raises(InputError, match="not text"):
        read_populations(path, ["a"])


ROWS = st.lists(
    st.tuples(
        st.integers(5, 40),
        st.sampled_from(["G", "T", ".", "*", "<DEL>", "G,T", "A", "G,g", "A,G", "G,*", "T,T,G"]),
    ),
    min_size=1, max_size=20,
)  # fmt: skip


def added_up(done):
    """Records, these with their further ALTs, and the sum of what is said of them."""
    whole, told = done.record_row()[1].split(": ")
    numbers = [int(word) for word in whole.split() if word.isdigit()]
    return numbers[0], sum(numbers), sum(int(part.split()[0]) for part in told.split(", "))


@given(ROWS, st.sampled_from([".vcf", ".vcf.gz", ".bcf"]), st.sampled_from(["20", "X"]))
@settings(max_examples=15, deadline=None)
def test_the_counts_add_up_to_the_records(tmp_path_factory, rows, suffix, contig):
    folder = tmp_path_factory.mktemp("sum")
    lines = [(contig, at, "A", alt, "0|0", "0|0") for at, alt in sorted(rows)]
    lines = [(contig, 0, "A", "G", "0|1", "0|1"), (contig, 3, "A", "C", "0|1", "0|1"), *lines]
    source = write_vcf(folder / "x.vcf", lines, contigs=(contig,))
    if suffix != ".vcf":
        source = convert(source, suffix, index=False)
    done = prepare(source, folder / "p.h5", cm_per_mb=1, par="none")
    num_records, whole, told = added_up(done)
    assert num_records == len(lines)
    assert whole == told
    assert done.panel.num_sites + sum(done.panel.dropped.values()) == whole - sum(
        done.counts.skipped.values()
    )


@given(ROWS)
@settings(max_examples=20, deadline=None)
def test_the_same_panel_of_scikit_allels_file(tmp_path_factory, rows):
    """Repeated and absent ALTs of an HDF5 are read as those of the VCF that it is made of."""
    folder = tmp_path_factory.mktemp("allel")
    rng = np.random.default_rng(len(rows))
    lines, called = [], []
    for at, alt in [(3, "C"), *sorted(rows)]:
        num_alts = 0 if alt == "." else alt.count(",") + 1
        calls = rng.integers(0, num_alts + 1, (2, 2))
        called.append(calls)
        lines.append(("20", at, "A", alt, *(f"{a}|{b}" for a, b in calls)))
    prepare(write_vcf(folder / "x.vcf", lines), folder / "v.h5", cm_per_mb=1)
    alts = [line[3].replace(".", "").split(",") for line in lines]
    with h5py.File(folder / "a.h5", "w") as file:
        text = h5py.string_dtype()
        file["variants/POS"] = np.array([line[1] for line in lines], np.int32)
        file["variants/CHROM"] = np.array(["20"] * len(lines), text)
        file["variants/REF"] = np.array(["A"] * len(lines), text)
        file["variants/ALT"] = np.array([(a + [""] * 3)[:3] for a in alts], text)
        file["calldata/GT"] = np.array(called, np.int8)
        file["samples"] = np.array(["a", "b"], text)
    stream = AllelReader(folder / "a.h5")
    write_panel(folder / "p.h5", stream, samples=["a", "b"], genetic_map=GeneticMap.uniform(1.0))
    with Panel.open(folder / "v.h5") as one, Panel.open(folder / "p.h5") as other:
        assert one.checksum == other.checksum
    vcf = PanelStream(folder / "x.vcf")
    list(vcf)
    assert vcf.counts == stream.counts
