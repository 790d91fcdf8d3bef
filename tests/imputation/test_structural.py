"""Panels of structural variants and repeats, from a VCF or BCF to the output and back."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace

import cyvcf2
import numpy as np
import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structural_fixtures import HEADER, Record, mosaics, structural_records, write_records
from typer.testing import CliRunner
from vcf_fixtures import bcftools, convert, rows_of, run_bcftools, view

from ragimpute.accuracy.evaluate import evaluate
from ragimpute.cli.main import app
from ragimpute.errors import InputError
from ragimpute.imputation.impute import impute
from ragimpute.imputation.options import ImputeOptions, OutputOptions
from ragimpute.jobs.merge import merge
from ragimpute.panel.reader import Panel
from ragimpute.phasing.phase import phase
from ragimpute.preparation.prepare import prepare
from ragimpute.target.inputs import TargetOptions

NUM_SITES, NUM_PANEL, NUM_TARGETS = 48, 30, 4
KEPT = {"SVTYPE", "END", "SVLEN", "CIPOS", "MEINFO", "IMPRECISE", "RU", "PERIOD"}
FAST = {"fine_tune": False, "ne": 10_000.0, "err": 1e-3}


@pytest.fixture(scope="module")
def records():
    return structural_records(3, NUM_SITES, NUM_PANEL + NUM_TARGETS)


@pytest.fixture(scope="module")
def folder(records, tmp_path_factory):
    """panel.vcf, panel.bcf and panel.h5; target.vcf of SNPs, truth.vcf of all."""
    folder = tmp_path_factory.mktemp("structural")
    panel = write_records(folder / "panel.vcf", records, range(NUM_PANEL))
    convert(panel, ".bcf")
    prepare(panel, folder / "panel.h5", cm_per_mb=1.0)
    targets = range(NUM_PANEL, NUM_PANEL + NUM_TARGETS)
    write_records(folder / "truth.vcf", records, targets)
    snps = [record for record in records if record.name.startswith("rs")]
    write_records(folder / "target.vcf", snps[::2], targets)
    return folder


def kept_info(text):
    """The fields of INFO that are of the alleles."""
    return sorted(part for part in text.split(";") if part.partition("=")[0] in KEPT)


def site_rows(path):
    """Position, ID, REF, ALT and the INFO of the alleles, of each record."""
    return [(int(row[1]), *row[2:5], *kept_info(row[7])) for row in rows_of(view(path))]


def split_rows(records):
    """What ``site_rows`` gives of records once their ALTs are split."""
    rows = []
    for record in records:
        alts = record.alt.split(",")
        for i, alt in enumerate(alts):
            parts = []
            for part in kept_info(record.info):
                name, _, value = part.partition("=")
                if name == "SVLEN" and len(alts) > 1:
                    value = value.split(",")[i]
                if value != ".":
                    parts.append(f"{name}={value}" if value else name)
            rows.append((record.position, record.name, record.ref, alt, *parts))
    return rows


def test_a_panel_keeps_symbolic_alleles_and_where_they_end(folder, records):
    prepare(folder / "panel.bcf", folder / "of_bcf.h5", cm_per_mb=1.0)
    with Panel.open(folder / "panel.h5") as panel, Panel.open(folder / "of_bcf.h5") as other:
        assert panel.checksum == other.checksum
        assert panel.has_symbolic
        assert len(set(panel.sites.keys())) == panel.num_sites == len(split_rows(records))
        assert sorted(panel.declarations) == sorted(
            line for line in HEADER.splitlines()
            if line.startswith(("##ALT", "##INFO")) and "ID=AC," not in line
        )  # fmt: skip
        kinds = np.array(panel.site_types)[panel.site_type]
        assert dict(zip(panel.sites.id, kinds, strict=True)) | {
            "del": "SV", "cnv": "SV", "bnd": "SV", "str12": "SV", "ins": "INS",
        } == dict(zip(panel.sites.id, kinds, strict=True))  # fmt: skip
        panel.verify()


def test_old_panels_without_info_are_read(tmp_path, folder, records):
    """A panel of SNPs has no INFO part, and the checksum that earlier versions gave it."""
    import h5py

    snps = [record for record in records if record.name.startswith("rs")]
    source = write_records(tmp_path / "x.vcf", snps, range(NUM_PANEL))
    prepare(source, tmp_path / "x.h5", cm_per_mb=1.0)
    with h5py.File(tmp_path / "x.h5") as file:
        assert set(file["sites"]) == {"position_bp", "position_cm", "ref", "alt", "id",
                                      "alt_count", "type"}  # fmt: skip
    with Panel.open(tmp_path / "x.h5") as panel:
        assert panel.sites.info is None
        assert panel.declarations == []
        assert not panel.has_symbolic


@pytest.mark.parametrize("suffix", ["vcf", "vcf.gz", "bcf"])
def test_each_symbolic_record_comes_out_once_with_its_info(folder, records, tmp_path, suffix):
    out = tmp_path / f"x.{suffix}"
    impute(folder / "target.vcf", folder / "panel.h5", out)
    assert site_rows(out) == split_rows(records)
    header = view(out, "-h")
    for line in HEADER.splitlines():
        if line.startswith(("##ALT", "##INFO")):
            assert (line in header) == ("ID=AC," not in line)
    for variant in cyvcf2.VCF(str(out)):
        end = variant.INFO.get("END")
        expected = variant.start + len(variant.REF) if end is None else end
        assert variant.end == expected
    if suffix == "vcf":
        return
    # The index knows where a record ends: a base within the first deletion alone finds it.
    inside = records[5].position + 300
    if suffix == "bcf":
        found = bcftools("query", "-f", "%ID\\n", "-r", f"20:{inside}-{inside}", out).split()
    else:
        with pysam.TabixFile(str(out)) as table:
            found = [line.split("\t")[2] for line in table.fetch("20", inside - 1, inside)]
    assert found == ["del", "del2"]


def test_formats_say_the_same(folder, tmp_path):
    for suffix in ("vcf", "bcf"):
        for joined in (False, True):
            options = OutputOptions(join_multiallelics=joined)
            impute(folder / "target.vcf", folder / "panel.h5", tmp_path / f"{joined}.{suffix}",
                   output_options=options)  # fmt: skip
    for joined in (False, True):
        assert view(tmp_path / f"{joined}.bcf", "-H") == view(tmp_path / f"{joined}.vcf", "-H")


def test_alts_of_one_record_are_joined_again_and_no_others(folder, records, tmp_path):
    impute(folder / "target.vcf", folder / "panel.h5", tmp_path / "x.vcf",
           output_options=OutputOptions(join_multiallelics=True))  # fmt: skip
    expected = [(r.position, r.name, r.ref, r.alt, *kept_info(r.info)) for r in records]
    assert site_rows(tmp_path / "x.vcf") == expected


def test_typed_symbolic_alleles_are_matched_by_their_ends(folder, records, tmp_path):
    targets = range(NUM_PANEL, NUM_PANEL + NUM_TARGETS)
    impute(folder / "truth.vcf", folder / "panel.h5", tmp_path / "x.vcf")
    impute(convert(folder / "truth.vcf", ".bcf"), folder / "panel.h5", tmp_path / "y.vcf")
    rows = rows_of(view(tmp_path / "x.vcf"))
    assert all("TYPED" in row[7].split(";") for row in rows)
    assert rows == rows_of(view(tmp_path / "y.vcf"))
    truth = {r.name: r for r in records}
    for row in rows:
        record = truth[row[2]]
        number = record.alt.split(",").index(row[4]) + 1
        called = [cell.split(":")[0] for cell in row[9:]]
        wanted = (record.alleles[list(targets)] == number).astype(int)
        assert called == [f"{a}|{b}" for a, b in wanted.tolist()]

    moved = [
        replace(r, info=r.info.replace("END=", "END=1")) if r.name in ("del", "inv") else r
        for r in records
    ]
    # N stands for any base of REF; a file without END does not tell which deletion it means.
    moved = [replace(r, ref="N") if r.name == "alu" else r for r in moved]
    moved = [replace(r, info="SVTYPE=DEL") if r.name == "del2" else r for r in moved]
    source = write_records(tmp_path / "moved.vcf", moved, targets)
    options = TargetOptions(excluded_sites=tmp_path / "excluded.txt")
    impute(source, folder / "panel.h5", tmp_path / "z.vcf", target_options=options,
           output_options=OutputOptions(typed_only=True))  # fmt: skip
    rows = rows_of(view(tmp_path / "z.vcf"))
    flag = {(row[2], row[7].rpartition(";")[2]) for row in rows}
    assert {("del", "IMP"), ("del", "TYPED_ONLY"), ("del2", "IMP"), ("del2", "TYPED_ONLY"),
            ("inv", "IMP"), ("inv", "TYPED_ONLY"), ("alu", "TYPED")} <= flag  # fmt: skip
    told = [line.split("\t")[2:6] for line in (tmp_path / "excluded.txt").read_text().splitlines()]
    assert [name for name, *_ in told[1:]] == ["del", "del2", "inv"]
    assert all(reason == "allele_mismatch" for *_, reason in told[1:])


def test_a_target_with_symbolic_alleles_beside_a_panel_without(records, tmp_path):
    snps = [record for record in records if record.name.startswith("rs")]
    write_records(tmp_path / "p.vcf", snps, range(NUM_PANEL))
    prepare(tmp_path / "p.vcf", tmp_path / "p.h5", cm_per_mb=1.0)
    target = write_records(tmp_path / "t.vcf", records, [NUM_PANEL])
    options = TargetOptions(excluded_sites=tmp_path / "excluded.txt")
    impute(target, tmp_path / "p.h5", tmp_path / "x.vcf", target_options=options)
    reasons = [line.split("\t")[5] for line in (tmp_path / "excluded.txt").read_text().splitlines()]
    assert reasons.count("symbolic") == 9
    assert "SVTYPE" not in view(tmp_path / "x.vcf")


def test_a_haplotype_with_a_deletion_says_nothing_of_the_bases_within(folder, records, tmp_path):
    """In a target, carriers of <DEL> in ``G,<DEL>`` have neither G nor its REF for certain."""
    mixed = next(record for record in records if record.name == "mixed")
    target = write_records(
        tmp_path / "t.vcf", [*records[:4], mixed], range(NUM_PANEL, NUM_PANEL + 4)
    )
    impute(target, folder / "panel.h5", tmp_path / "x.vcf")
    rows = {(row[2], row[4]): row for row in rows_of(view(tmp_path / "x.vcf"))}
    for cell, pair in zip(
        rows["mixed", "G"][9:], mixed.alleles[NUM_PANEL : NUM_PANEL + 4].tolist(), strict=True
    ):
        assert cell.split(":")[0] == "|".join(str(int(allele == 1)) for allele in pair)


def test_phase_merge_and_evaluate(folder, records, tmp_path):
    phase(folder / "truth.vcf", folder / "panel.h5", tmp_path / "p.vcf", join_multiallelics=True)
    wanted = [(r.position, r.name, r.ref, r.alt, *kept_info(r.info)) for r in records]
    assert site_rows(tmp_path / "p.vcf") == wanted
    names = [f"s{i}" for i in range(NUM_PANEL, NUM_PANEL + NUM_TARGETS)]
    for part, chosen in (("a", names[:2]), ("b", names[2:])):
        (tmp_path / f"{part}.txt").write_text("\n".join(chosen))
        options = TargetOptions(samples=tmp_path / f"{part}.txt")
        impute(folder / "target.vcf", folder / "panel.h5", tmp_path / f"{part}.bcf",
               target_options=options)  # fmt: skip
    for suffix in ("vcf", "bcf"):
        merge([tmp_path / "a.bcf", tmp_path / "b.bcf"], tmp_path / f"all.{suffix}")
        assert site_rows(tmp_path / f"all.{suffix}") == split_rows(records)
    assert view(tmp_path / "all.vcf", "-H") == view(tmp_path / "all.bcf", "-H")
    for panel in ("panel.h5", "panel.vcf"):
        found = evaluate(folder / "truth.vcf", tmp_path / "all.bcf", folder / panel)
        assert found.counts["scored"] + found.counts["typed"] == len(split_rows(records))
        assert found.counts["absent"] == found.counts["not_in_panel"] == 0
        assert found.counts["duplicate"] == 0


def test_batches_whose_deletions_end_elsewhere_are_not_merged(folder, records, tmp_path):
    other = [replace(r, info=r.info.replace("END=", "END=1")) if r.name == "inv" else r
             for r in records]  # fmt: skip
    write_records(tmp_path / "p.vcf", other, range(NUM_PANEL))
    names = [f"s{i}" for i in range(NUM_PANEL, NUM_PANEL + NUM_TARGETS)]
    for part, chosen, panel in (("a", names[:2], folder / "panel.h5"),
                                ("b", names[2:], tmp_path / "p.vcf")):  # fmt: skip
        (tmp_path / f"{part}.txt").write_text("\n".join(chosen))
        impute(folder / "target.vcf", panel, tmp_path / f"{part}.vcf", cm_per_mb=None
               if panel.suffix == ".h5" else 1.0,
               target_options=TargetOptions(samples=tmp_path / f"{part}.txt"))  # fmt: skip
    with pytest.raises(InputError, match=r"<INV>:END=\d+, the other has .*<INV>:END=1"):
        merge([tmp_path / "a.vcf", tmp_path / "b.vcf"], tmp_path / "x.vcf")


@pytest.mark.needs_program("plink2")
@pytest.mark.parametrize("suffix", ["bgen", "pgen"])
def test_plink2_reads_sets_with_symbolic_alleles(folder, records, tmp_path, suffix):
    pytest.importorskip("pgenlib")
    out = tmp_path / f"x.{suffix}"
    impute(folder / "target.vcf", folder / "panel.h5", out)
    given = ["--bgen", out, "ref-first", "--sample", out.with_suffix(".sample")]
    if suffix == "pgen":
        given = ["--pfile", out.with_suffix(""), "vzs"]
    made = tmp_path / "made"
    subprocess.run(["plink2", *map(str, given), "--export", "vcf", "vcf-dosage=DS", "--out",
                    str(made)], check=True, capture_output=True)  # fmt: skip
    rows = [tuple(row[1:5]) for row in rows_of(made.with_suffix(".vcf").read_text())]
    assert rows == [(str(row[0]), *row[1:4]) for row in split_rows(records)]


def test_lists_name_symbolic_sites(folder, records, tmp_path):
    deletion, inversion = (next(r for r in records if r.name == name) for name in ("del", "inv"))
    at, end = deletion.position, deletion.position + 900
    lists = {
        "two.txt": (f"20\t{at}\tN\t<DEL>\n", ["del", "del2"]),
        "one.txt": (f"20:{at}:N:<DEL>:END={end}\n", ["del2"]),
        "none.txt": (f"20 {inversion.position} T <INV>:END=7\n20 {at + 8000} A <CN2>\n", ["cnv"]),
    }
    for name, (text, wanted) in lists.items():
        (tmp_path / name).write_text(text)
        options = OutputOptions(sites_file=tmp_path / name)
        impute(folder / "target.vcf", folder / "panel.h5", tmp_path / "x.vcf",
               output_options=options)  # fmt: skip
        assert [row[1] for row in site_rows(tmp_path / "x.vcf")] == wanted
    chosen = [r for r in records if r.name in ("del2", "cnv", "bnd")]
    source = write_records(tmp_path / "list.vcf", chosen, [0])
    for path in (source, convert(source, ".bcf", index=False)):
        options = OutputOptions(sites_file=path, sites_status=tmp_path / "status.txt")
        impute(folder / "target.vcf", folder / "panel.h5", tmp_path / "x.vcf",
               output_options=options)  # fmt: skip
        assert site_rows(tmp_path / "x.vcf") == split_rows(chosen)
        status = [line.split("\t") for line in (tmp_path / "status.txt").read_text().splitlines()]
        assert status[1][9] == f"20:{at}:N:<DEL>:END={end}"


# Kinds of record, each with what makes it unlike another of its kind at the same position.
ENDS = st.integers(1, 5000)
ALTS = st.one_of(
    st.tuples(st.sampled_from(["<DEL>", "<DUP>", "<CN0>", "<INV>", "<STR7>"]),
              ENDS.map(lambda n: ("END", n))),
    st.tuples(st.sampled_from(["<INS>", "<INS:ME:L1>"]), ENDS.map(lambda n: ("SVLEN", n))),
    st.tuples(ENDS.map(lambda n: f"A[7:{n}["), st.just(None)),
    st.tuples(st.text("ACGT", min_size=2, max_size=40).map("A".__add__), st.just(None)),
)  # fmt: skip


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_prepare_impute_and_back(tmp_path, data):
    """Each record comes out once, with its key, and in order, whatever is at one position."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    num = 24
    alleles = mosaics(rng, num, 14)
    records: list[Record] = []
    for i in range(num):
        position = 10_000 + 100 * (i // 3 * 3)
        if i % 3 == 0:
            records.append(Record(position, f"r{i}", "A", "G", "", alleles[i]))
            continue
        alt, told = data.draw(ALTS)
        info = ""
        if told:
            info = f"{told[0]}={position + told[1] if told[0] == 'END' else told[1]}"
        if all((r.position, r.alt, r.info) != (position, alt, info) for r in records):
            records.append(Record(position, f"r{i}", "A", alt, info, alleles[i]))
    source = write_records(tmp_path / "p.vcf", records, range(10))
    if data.draw(st.booleans()):
        source = convert(source, ".bcf", index=False)
    prepare(source, tmp_path / "p.h5", cm_per_mb=1.0, force=True)
    target = write_records(tmp_path / "t.vcf", records[::3], range(10, 14))
    out = tmp_path / data.draw(st.sampled_from(["x.vcf", "x.bcf"]))
    options = ImputeOptions(**FAST, output_options=OutputOptions(
        join_multiallelics=data.draw(st.booleans())))  # fmt: skip
    impute(target, tmp_path / "p.h5", out, options)
    rows = [
        (int(row[1]), row[2], alt, *kept_info(row[7]))
        for row in rows_of(view(out))
        for alt in row[4].split(",")
    ]
    joined = {name for row in rows for name in row[1].split(";")}
    assert joined == {record.name for record in records}
    wanted = [(r.position, r.alt, *kept_info(r.info)) for r in records]
    found = [(row[0], *row[2:]) for row in rows]
    assert sorted(found) == sorted(wanted)
    assert [row[0] for row in found] == [row[0] for row in wanted]


@pytest.mark.parametrize("suffix", [".vcf", ".bcf"])
def test_repeats_of_many_alts(tmp_path, monkeypatch, suffix):
    """As EnsembleTR has them: 127 ALTs are read, and a record of more is refused with a command."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    alts = ["A" + "CA" * (i + 1) for i in range(200)]
    made = enumerate(mosaics(rng, 8, 80))
    snps = [Record(100 * (i + 1), f"r{i}", "A", "G", "", alleles) for i, alleles in made]
    for most in (127, 128):
        alleles = np.append(np.arange(most + 1), rng.integers(most, size=159 - most))
        repeat = Record(5000, "str", "A", ",".join(alts[:most]), "RU=CA", alleles.reshape(80, 2))
        source = write_records(tmp_path / f"p{most}.vcf", [*snps, repeat], range(80))
        if suffix == ".bcf":
            source = convert(source, ".bcf")
        if most == 127:
            prepare(source, tmp_path / "p.h5", cm_per_mb=1.0)
    with pytest.raises(InputError, match="a sample has allele 128 of 128 ALTs") as found:
        prepare(source, tmp_path / "q.h5", cm_per_mb=1.0)
    assert not (tmp_path / "q.h5").exists()
    command = shlex.split(found.value.hint.partition(": bcftools ")[2])
    assert run_bcftools(*command).returncode == 0
    prepare(command[-1], tmp_path / "q.h5", cm_per_mb=1.0)
    with Panel.open(tmp_path / "p.h5") as panel:
        counts = dict(zip(panel.sites.alt.tolist(), panel.alt_count.tolist(), strict=True))
        assert panel.num_sites == 8 + 127
        assert all(counts[alt] >= 1 for alt in alts[:127])
        rows = panel.haplotypes(8, 135).alleles()
        assert (rows.sum(axis=0) <= 1).all()


def test_info_names_what_a_panel_keeps(folder):
    done = CliRunner().invoke(app, ["info", str(folder / "panel.h5")])
    told = " ".join(done.output.split())
    assert "CIPOS, END, IMPRECISE, MEINFO, PERIOD, RU, SVLEN, SVTYPE; at" in told
    assert "SV" in told


@pytest.mark.needs_program("plink2")
def test_a_pgen_types_symbolic_alleles_by_the_info_of_its_pvar(folder, records, tmp_path):
    pytest.importorskip("pgenlib")
    made = tmp_path / "made"
    command = ["plink2", "--vcf", folder / "truth.vcf", "--make-pgen", "--out", made]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    impute(made.with_suffix(".pgen"), folder / "panel.h5", tmp_path / "x.vcf")
    rows = rows_of(view(tmp_path / "x.vcf"))
    assert len(rows) == len(split_rows(records))
    assert all("TYPED" in row[7].split(";") for row in rows)
