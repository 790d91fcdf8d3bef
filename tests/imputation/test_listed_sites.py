"""``impute --sites-file``: only these sites, as the whole output has them, and why others lack."""

from __future__ import annotations

import csv
import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multiallelic_fixtures import mosaic_records
from site_list_fixtures import score_row, score_text
from vcf_fixtures import convert, read_imputed, rows_of, vcf_text, view

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.imputation.impute import impute
from ragimpute.imputation.listed_sites import list_sites
from ragimpute.imputation.options import OutputOptions
from ragimpute.io.site_list import read_site_list
from ragimpute.panel.reader import Panel
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region, Sites
from ragimpute.target.indels import trimmed

TARGET = example.path("target.vcf.gz")
REGION = Region.parse("20:2200000-2240000")
FIXED = {"ne": 1e5, "err": 1e-3, "fine_tune": False}
OTHER = dict(zip("ACGT", "TGCA", strict=True))


@pytest.fixture(scope="module")
def run(panel_h5, plain_copying):
    """Impute a part of the example with some output options."""

    def done(out, target=TARGET, *, resume=False, region=REGION, window_cm=40.0, **options):
        return impute(
            target, panel_h5, out, model=plain_copying, region=region, resume=resume,
            window_cm=window_cm, output_options=OutputOptions(**options), **FIXED,
        )  # fmt: skip

    return done


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The rows of all sites of the region."""
    path = tmp_path_factory.mktemp("whole") / "whole.vcf.gz"
    run(path)
    return rows_of(view(path))


def table(path):
    """The rows of a table, by the names of its columns."""
    with Path(path).open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def body(path):
    return rows_of(view(path))


def plain_list(folder, rows):
    path = folder / "list.txt"
    path.write_text("".join(f"{r[0]} {r[1]} {r[3]} {r[4]}\n" for r in rows))
    return path


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_the_records_are_those_of_the_whole_output(run, whole, tmp_path, suffix):
    chosen = whole[3::7]
    sites = plain_list(tmp_path, chosen[::-1])  # the order of the list does not count
    out = tmp_path / f"x{suffix}"
    summary = run(out, sites_file=sites, sites_status=tmp_path / "s.tsv")
    assert body(out) == chosen
    rows = table(tmp_path / "s.tsv")
    flags = ["typed" if "TYPED" in row[7].split(";") else "imputed" for row in chosen]
    assert [row["STATUS"] for row in rows] == flags[::-1]
    assert {"typed", "imputed"} == set(flags)
    text = dict(summary.rows())["--sites-file"]
    assert f"{len(chosen)} of {len(chosen)} found" in text
    assert dict(summary.rows())["written"].startswith(f"{len(chosen)}: ")


def test_windows_and_resume_do_not_change_what_is_written(run, whole, tmp_path):
    chosen = whole[::9]
    sites = plain_list(tmp_path, chosen)
    more = {"sites_file": sites, "min_r2": 0.3}
    run(tmp_path / "a.vcf", sites_status=tmp_path / "a.tsv", window_cm=0.02, **more)
    run(tmp_path / "b.vcf", sites_status=tmp_path / "b.tsv", window_cm=0.02, resume=True, **more)
    assert body(tmp_path / "a.vcf") == body(tmp_path / "b.vcf")
    assert (tmp_path / "a.tsv").read_text() == (tmp_path / "b.tsv").read_text()


def test_a_run_that_was_interrupted_goes_on_with_its_list(run, whole, tmp_path, monkeypatch):
    from ragimpute.imputation.outputs import Outputs

    more = {"sites_file": plain_list(tmp_path, whole[::5]), "min_r2": 0.5, "window_cm": 0.02}
    run(tmp_path / "a.vcf", sites_status=tmp_path / "a.tsv", **more)
    calls, real = [], Outputs.checkpoint

    def stop(self):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Outputs, "checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b.vcf", resume=True, sites_status=tmp_path / "b.tsv", **more)
    assert not (tmp_path / "b.tsv").exists()
    monkeypatch.undo()
    done = run(tmp_path / "b.vcf", resume=True, sites_status=tmp_path / "b.tsv", **more)
    assert done.settings["resumed"].startswith("2 of ")
    assert body(tmp_path / "a.vcf") == body(tmp_path / "b.vcf")
    assert (tmp_path / "a.tsv").read_text() == (tmp_path / "b.tsv").read_text()
    assert "below_min_r2" in (tmp_path / "b.tsv").read_text()


def test_pgsc_calc_86_each_variant_that_is_missing_has_a_reason(run, whole, tmp_path):
    """Users see "10 % match" and do not know why."""
    snps = [r for r in whole if len(r[3]) == len(r[4]) == 1 and OTHER[r[3]] != r[4]]
    untyped = [row for row in snps if "IMP" in row[7].split(";")]
    low = next(row for row in untyped if float(row[7].split("DR2=")[1].split(";")[0]) < 0.2)
    high = [row for row in untyped if float(row[7].split("DR2=")[1].split(";")[0]) > 0.9]
    free = next(p for p in range(2_200_000, 2_240_000) if str(p) not in {r[1] for r in whole})
    at = {row[1]: sum(r[1] == row[1] for r in whole) for row in whole}
    alone = next(row for row in high if at[row[1]] == 1)
    third = next(x for x in "ACGT" if x not in {alone[3], alone[4], OTHER[alone[3]]})
    rows = {
        "imputed": score_row("chr20", int(high[0][1]), high[0][4], high[0][3]),
        "below_min_r2": score_row("20", int(low[1]), low[4], low[3]),
        "other_contig": score_row("1", 5, "A", "C"),
        "no_position": score_row("", 0, "e4", "", hm_pos="", rsID="", chr_position=""),
        "not_in_panel": score_row("20", free, "A", "C"),
        "other_alleles": score_row("20", int(alone[1]), third, alone[3]),
        "outside_region": score_row("20", 2_000_021, "", ""),
    }
    path = tmp_path / "score.txt"
    path.write_text(score_text(rows.values()))
    out = tmp_path / "x.vcf"
    summary = run(out, sites_file=path, sites_status=tmp_path / "s.tsv", min_r2=0.5)
    found = table(tmp_path / "s.tsv")
    assert [row["STATUS"] for row in found] == list(rows)
    assert [int(row["LINE"]) for row in found] == list(range(8, 15))
    assert [row[1] for row in body(out)] == [high[0][1]]
    text = dict(summary.rows())["--sites-file"]
    assert "1 of 7 found: 1 imputed; missing: 1 on another contig" in text


def test_pgsc_calc_236_rows_without_a_position_are_found_by_rsid_or_told(tmp_path, plain_copying):
    """Scores may lack positions; such rows must not go silently."""
    panel, target = small_panel(tmp_path)
    path = tmp_path / "l.txt"
    path.write_text("rsID\teffect_allele\teffect_weight\nrs30\tT\t1\nrs77\tA\t2\n")
    impute(
        target, panel, tmp_path / "o.vcf", model=plain_copying, **FIXED,
        output_options=OutputOptions(sites_file=path, sites_status=tmp_path / "s.tsv"),
    )  # fmt: skip
    assert [row[1] for row in body(tmp_path / "o.vcf")] == ["30"]
    assert [row["STATUS"] for row in table(tmp_path / "s.tsv")] == ["imputed", "no_position"]


def small_panel(folder):
    """A panel with a strand-flipped SNP, an indel, a locus of two ALTs and a palindrome."""
    sites = [(10, "A", "C"), (20, "GT", "G"), (30, "C", "T"), (30, "C", "A"), (40, "A", "T"),
             (50, "G", "A")]  # fmt: skip
    rng = np.random.default_rng(3)
    rows = [(*s, *(f"{a}|{b}" for a, b in rng.integers(0, 2, (6, 2)))) for s in sites]
    for i, (one, two) in enumerate(zip(rows[2][3:], rows[3][3:], strict=True)):
        if "1" in one and "1" in two:
            rows[3] = (*rows[3][: 3 + i], "0|0", *rows[3][4 + i :])
    text = vcf_text(rows, list("abcdef")).replace("ID=20>", "ID=20,length=63025520>")
    lines = text.splitlines()
    lines = [x if x[0] == "#" else x.replace("\t.\t", f"\trs{x.split()[1]}\t", 1) for x in lines]
    (folder / "panel.vcf").write_text("\n".join(lines) + "\n")
    prepare(folder / "panel.vcf", folder / "panel.h5", cm_per_mb=1.0)
    target = vcf_text([(10, "A", "C", "0|1"), (50, "G", "A", "1|0")], ["x"])
    (folder / "target.vcf").write_text(target)
    return folder / "panel.h5", folder / "target.vcf"


def statuses(folder, text):
    """Statuses, ways of matching and counted alleles of the rows of a list on the small panel."""
    panel, _ = small_panel(folder)
    (folder / "list").write_text(text)
    with Panel.open(panel) as opened:
        listed = list_sites(read_site_list(folder / "list"), opened, 0, 6, contig="20")
        listed.write(folder / "t.tsv", listed.statuses(np.zeros(6, bool), np.zeros(0, int)),
                     np.ones(6, np.float32), np.zeros(6, bool))  # fmt: skip
    return [(row["STATUS"], row["MATCH"], row["COUNTED"]) for row in table(folder / "t.tsv")]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("10 A C", ("imputed", "same", "C")),
        ("10 C A", ("imputed", "swapped", "A")),
        ("10 T G", ("imputed", "flipped", "C")),
        ("10 G T", ("imputed", "flipped_swapped", "A")),
        ("10 a c", ("imputed", "same", "C")),
        ("10 A G", ("other_alleles", ".", ".")),
        ("20 GT G", ("imputed", "same", "G")),
        ("20 GTT GT", ("imputed", "same", "G")),
        ("20 G GT", ("imputed", "swapped", "GT")),
        ("20 CA C", ("other_alleles", ".", ".")),  # the other strand of an indel is not certain
        ("30 C A", ("imputed", "same", "A")),
        ("40 A T", ("imputed", "same", "T")),
        ("40 T A", ("imputed", "swapped", "A")),
        ("9 TA TC", ("imputed", "same", "C")),
        ("11 A C", ("not_in_panel", ".", ".")),
    ],
)
def test_alleles_are_matched_where_they_are_certain(tmp_path, row, expected):
    assert statuses(tmp_path, f"chr20 {row}\n") == [expected]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((10, "C"), ("imputed", "same", "C")),
        ((10, "A"), ("imputed", "swapped", "A")),
        ((10, "G"), ("other_alleles", ".", ".")),  # perhaps of the other strand, perhaps a third
        ((30, "A"), ("imputed", "same", "A")),
        ((30, "C"), ("several_alts", ".", ".")),
    ],
)
def test_an_effect_allele_alone(tmp_path, row, expected):
    assert statuses(tmp_path, score_text([score_row("20", *row, "")])) == [expected]


def test_a_position_alone_is_all_its_sites(tmp_path):
    assert statuses(tmp_path, "20\t30\n20 31\n") == [
        ("imputed", "by_position", "T"), ("imputed", "by_position", "A"),
        ("not_in_panel", ".", "."),
    ]  # fmt: skip


def test_bcftools_1542_a_joined_record_stays_whole(tmp_path, plain_copying):
    records = mosaic_records(5, 40, 24)
    panel = records.of_samples(slice(20))
    path = panel.write(tmp_path / "p.vcf", panel.joined())
    prepare(path, tmp_path / "p.h5", cm_per_mb=1.0)
    target = records.of_samples(slice(20, None)).take(slice(None, None, 3))
    given = target.write(tmp_path / "t.vcf", target.joined())
    several = [site for site in panel.sites if len(site[2]) > 1]
    (tmp_path / "l.txt").write_text(
        "".join(f"20\t{p}\t{ref}\t{alts[0]}\n" for p, ref, alts in several)
    )
    made = {}
    for name, listed in product((False, True), repeat=2):
        out = tmp_path / f"{name}{listed}.vcf"
        options = OutputOptions(
            join_multiallelics=name, sites_file=tmp_path / "l.txt" if listed else None
        )
        impute(given, tmp_path / "p.h5", out, model=plain_copying, output_options=options, **FIXED)
        made[name, listed] = body(out)
    wanted = {(str(p), ref, alts[0]) for p, ref, alts in several}
    assert made[False, True] == [r for r in made[False, False] if (r[1], r[3], r[4]) in wanted]
    of_loci = [r for r in made[True, False]
               if any((r[1], r[3], alt) in wanted for alt in r[4].split(","))]  # fmt: skip
    assert made[True, True] == of_loci
    assert any("," in row[4] for row in of_loci)


def test_records_that_the_panel_lacks_are_written_if_they_are_listed(tmp_path, plain_copying):
    panel, target = small_panel(tmp_path)
    target.write_text(vcf_text([(10, "A", "C", "0|1"), (15, "G", "T", "1|1"),
                                (17, "G", "T", "0|1"), (50, "G", "A", "1|0")], ["x"]))  # fmt: skip
    (tmp_path / "l.txt").write_text("20 15 T G\n20 50 G A\n")
    impute(
        target, panel, tmp_path / "o.vcf", model=plain_copying, **FIXED,
        output_options=OutputOptions(
            typed_only=True, sites_file=tmp_path / "l.txt", sites_status=tmp_path / "s.tsv"
        ),
    )  # fmt: skip
    assert [row[1] for row in body(tmp_path / "o.vcf")] == ["15", "50"]
    rows = table(tmp_path / "s.tsv")
    assert [row["STATUS"] for row in rows] == ["typed_only", "typed"]
    assert [row["VARIANT"] for row in rows] == ["20:15:G:T", "20:50:G:A"]
    assert [row["COUNTED"] for row in rows] == ["G", "A"]


def test_a_score_of_another_build_is_refused(run, tmp_path):
    path = tmp_path / "s.txt"
    path.write_text(score_text([score_row("20", 2_200_305, "A", "C")], hm_build="GRCh38"))
    with pytest.raises(InputError, match=r"of GRCh38 and GRCh38, and the panel .* is of GRCh37"):
        run(tmp_path / "x.vcf", sites_file=path)
    assert not (tmp_path / "x.vcf").exists()


def test_the_columns_of_the_panels_build_are_taken(run, whole, tmp_path):
    row = whole[10]
    given = score_row("20", 1, row[4], row[3], chr_position=row[1])
    path = tmp_path / "s.txt"
    path.write_text(score_text([given], build="hg19", hm_build="GRCh38"))
    run(tmp_path / "x.vcf", sites_file=path)
    assert body(tmp_path / "x.vcf") == [row]


def test_positions_that_do_not_fit_are_told(run, whole, tmp_path):
    moved = [(row[0], int(row[1]) + 1, "", row[3], row[4]) for row in whole[::10]]
    summary = run(tmp_path / "x.vcf", sites_file=plain_list(tmp_path, moved))
    assert any("of another genome build" in line for line in summary.warnings)
    plain_list(tmp_path, [("1", row[1], "", row[3], row[4]) for row in whole[::10]])
    summary = run(tmp_path / "y.vcf", sites_file=tmp_path / "list.txt")
    assert not any("of another genome build" in line for line in summary.warnings)
    assert any("the output holds no site" in line for line in summary.warnings)
    assert body(tmp_path / "y.vcf") == []


def test_a_vcf_or_bcf_of_sites_is_a_list(run, whole, tmp_path):
    rows = [(int(r[1]), r[3], r[4]) for r in whole[::11]]
    (tmp_path / "l.vcf").write_text(vcf_text(rows, ()))
    for path in (tmp_path / "l.vcf", convert(tmp_path / "l.vcf", ".bcf")):
        run(tmp_path / "x.vcf", sites_file=path)
        assert body(tmp_path / "x.vcf") == whole[::11]


def test_qc_only_tells_of_a_list_before_anything_is_imputed(
    command_line, panel_h5, whole, tmp_path
):
    path = plain_list(tmp_path, [*whole[::9], ("20", 2_200_001, ".", "A", "C")])
    more = ["--sites-file", path, "--sites-status", tmp_path / "s.tsv", "-r", str(REGION)]
    code, out, err = command_line("impute", TARGET, "--panel", panel_h5, "--qc-only", *more)
    assert code == 0, err
    num = len(whole[::9])
    assert f"{num} of {num + 1} found" in " ".join(out.split())
    found = [row["STATUS"] for row in table(tmp_path / "s.tsv")]
    kinds = ["typed" if "TYPED" in row[7].split(";") else "imputed" for row in whole[::9]]
    assert found == [*kinds, "not_in_panel"]


def test_a_status_needs_a_list_and_files_are_not_overwritten(run, tmp_path):
    with pytest.raises(InputError, match="none is given") as caught:
        run(tmp_path / "x.vcf", sites_status=tmp_path / "s.tsv")
    assert "--sites-file" in caught.value.hint
    path = tmp_path / "l.txt"
    path.write_text("20 5\n")
    with pytest.raises(InputError, match="is also the list of sites"):
        run(tmp_path / "x.vcf", sites_file=path, sites_status=path)
    assert path.read_text() == "20 5\n"


@pytest.mark.needs_program("plink2")
def test_a_score_by_plink2_is_the_sum_of_weights_times_dosages(run, whole, tmp_path):
    rng = np.random.default_rng(2)
    rows = []
    snps = [r for r in whole if len(r[3]) == len(r[4]) == 1 and OTHER[r[3]] != r[4]][::3]
    for i, row in enumerate(snps):
        effect, other = (row[4], row[3]) if i % 2 else (row[3], row[4])
        if i % 3 == 0:
            effect, other = OTHER[effect], OTHER[other]
        rows.append(score_row("20", int(row[1]), effect, other, round(rng.normal(), 3)))
    (tmp_path / "s.txt").write_text(score_text(rows))
    more = {"sites_file": tmp_path / "s.txt", "sites_status": tmp_path / "s.tsv"}
    run(tmp_path / "x.pgen", **more)
    run(tmp_path / "x.vcf")
    found = read_imputed(tmp_path / "x.vcf")
    index = [found.keys.index((int(r[1]), r[3], r[4])) for r in snps]
    sign = np.array([i % 2 for i in range(len(snps))])[:, None]
    dosage = np.where(sign, found.dosage[index], 2 - found.dosage[index])
    weights = np.array([row["effect_weight"] for row in rows])
    with (tmp_path / "w.txt").open("w") as file:
        for row in table(tmp_path / "s.tsv"):
            file.write(f"{row['VARIANT']} {row['COUNTED']} {row['WEIGHT']}\n")
    subprocess.run(
        ["plink2", "--pfile", "x", "vzs", "--set-all-var-ids", "@:#:$r:$a", "--score", "w.txt",
         "1", "2", "3", "cols=+scoresums", "--out", "x"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    told = table(tmp_path / "x.sscore")
    np.testing.assert_allclose(
        [float(row["SCORE1_SUM"]) for row in told], weights @ dosage, atol=2e-3
    )


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_spelling_of_a_panel_site_finds_it(data):
    """Of sites that share no alleles on the other strand: padded, swapped and flipped rows."""
    keys = [(100, "A", "C"), (200, "GT", "G"), (300, "T", "TAA"), (400, "G", "C"), (500, "C", "T")]
    i = data.draw(st.integers(0, len(keys) - 1))
    position, ref, alt = keys[i]
    swapped = data.draw(st.booleans())
    effect, other = (ref, alt) if swapped else (alt, ref)
    can_flip = len(ref) == len(alt) == 1 and OTHER[ref] != alt
    if can_flip and data.draw(st.booleans()):
        effect, other = OTHER[effect], OTHER[other]
    else:
        before, after = (
            data.draw(st.text("ACGT", max_size=2)),
            data.draw(st.text("ACG", max_size=2)),
        )
        padded = (position - len(before), before + other + after, before + effect + after)
        if trimmed(*padded) != trimmed(position, other, effect):
            return  # the padding makes it another indel
        position, other, effect = padded
    columns = [np.array(column, dtype=object) for column in zip(*keys, strict=True)]
    sites = Sites("20", columns[0].astype(np.int32), columns[1], columns[2],
                  np.full(len(keys), ".", object))  # fmt: skip
    panel = type("P", (), {"sites": sites, "contig": "20", "contig_length": None,
                           "num_sites": len(keys), "path": Path("p")})()  # fmt: skip
    from ragimpute.io.site_list import Places, SiteList

    place = Places(None, ["chr20"], np.array([position]))
    wanted = SiteList(Path("l"), "list", [place], [effect], [other], [""], [""], [1])
    listed = list_sites(wanted, panel, 0, len(keys), contig="20")
    assert np.flatnonzero(listed.mask).tolist() == [i]
    assert listed.rows[0].counted == (ref if swapped else alt)
