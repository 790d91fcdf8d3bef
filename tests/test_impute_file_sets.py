"""BGEN and PGEN from end to end, beside a VCF of the same run."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from slow_copying import mosaic_panel
from typer.testing import CliRunner
from vcf_fixtures import read_imputed, write_genotypes

from ragimpute.cli.main import app
from ragimpute.errors import InputError
from ragimpute.imputation.impute import impute
from ragimpute.imputation.options import OutputOptions
from ragimpute.io.vcf.read.genotypes import read_dosages
from ragimpute.panel.ploidy import PAR_BUILDS
from ragimpute.preparation.prepare import prepare
from ragimpute.target.inputs import TargetOptions

NUM_SITES, NUM_TARGETS = 240, 30
PGEN = OutputOptions(pvar="plain")
FIXED = {"ne": 3e3, "err": 1e-3, "fine_tune": False}
OUTSIDE = slice(80, 240)  # of the pseudo-autosomal region, on X
# A BGEN of 8 bits holds each probability to 1/255, a PGEN each dosage to 1/16384, a VCF to .001.
UNITS = {"bgen": 1.4 / 255, "pgen": 0.0001}


def make_target(folder, name, alleles, *, contig="20", length=63_025_520, first=1_000_000):
    """Keys and a VCF of genotypes (m, n, 2); every other site is typed."""
    position = first + 400 * np.arange(NUM_SITES)
    if contig == "X":  # a third of the sites lies in PAR1 of build 37
        position = np.concatenate([2_600_000 + 400 * np.arange(80),
                                   2_800_000 + 400 * np.arange(160)])  # fmt: skip
    keys = [(int(p), "A", "G") for p in position]
    path = folder / name
    samples = [f"{path.stem}{i}" for i in range(alleles.shape[1])]
    rows = range(NUM_SITES) if name.startswith("panel") else range(0, NUM_SITES, 2)
    write_genotypes(path, [keys[i] for i in rows], alleles[list(rows)], samples, contig=contig)
    text = path.read_text()
    path.write_text(text.replace(f"ID={contig}>", f"ID={contig},length={length}>"))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with panels and targets of an autosome and of X, where every other one is male."""
    folder = tmp_path_factory.mktemp("sets")
    num = 40 + NUM_TARGETS
    alleles = mosaic_panel(
        np.random.default_rng(7), NUM_SITES, 2 * num, num_founders=10, switches=0.01
    )
    alleles = alleles.reshape(NUM_SITES, num, 2).astype(np.int8)
    on_x = alleles.copy()
    on_x[OUTSIDE, ::2, 1] = -2
    for name, values, where in (
        ("", alleles, {}), ("x", on_x, {"contig": "X", "length": PAR_BUILDS["b37"][0]}),
    ):  # fmt: skip
        prepare(make_target(folder, f"panel{name}.vcf", values[:, :40], **where),
                folder / f"panel{name}.h5", cm_per_mb=1)  # fmt: skip
        make_target(folder, f"t{name}.vcf", values[:, 40:], **where)
    return folder


@pytest.fixture
def run(made, plain_copying, tmp_path):
    """Imputes into a file of the test's folder."""

    def one(out, which="", options=None, target=None, **more):
        fields = ("GT", "DS", "GP") if out.endswith(("gen", "-")) else ("GT", "DS", "GP", "HDS")
        return impute(
            target or made / f"t{which}.vcf", made / f"panel{which}.h5", tmp_path / out,
            model=plain_copying, output_options=options or OutputOptions(), **FIXED,
            **{"fields": fields} | more,
        )  # fmt: skip

    return one


def read_bgen(path):
    """Names, sites, ploidy (m, N) and dosages (m, N) of a BGEN."""
    bgen = pytest.importorskip("bgen")
    with bgen.BgenReader(path) as reader:
        rows = [(one.chrom, one.pos, *one.alleles, np.array(one.probabilities), one.is_phased)
                for one in reader]  # fmt: skip
        samples = list(reader.samples)
    dosage, ploidy = [], []
    for *_, prob, phased in rows:
        none = prob.shape[1] == 2  # of the samples is diploid
        haploid = np.ones(len(prob), bool) if none else np.isnan(prob[:, 2])
        weights = [0, 1, 0, 1] if phased else [0, 1, 2]
        dosage.append(np.nansum(prob * weights[: prob.shape[1]], axis=1))
        ploidy.append(np.where(haploid, 1, 2))
    return samples, [row[1:4] for row in rows], np.array(ploidy), np.array(dosage)


def read_pgen(path, num_sites, num_samples):
    """Dosages of a PGEN, (m, N)."""
    pgenlib = pytest.importorskip("pgenlib")
    reader = pgenlib.PgenReader(os.fsencode(path))
    assert (reader.get_variant_ct(), reader.get_raw_sample_ct()) == (num_sites, num_samples)
    found = np.empty((num_sites, num_samples), np.float32)
    for i in range(num_sites):
        reader.read_dosages(i, found[i])
    reader.close()
    return found


def sexes(path):
    """The last column of a .sample or .psam file."""
    skipped = 2 if path.suffix == ".sample" else 1
    return [line.split()[-1] for line in path.read_text().splitlines()[skipped:]]


@pytest.mark.parametrize("phased", [False, True])
def test_regenie_65_a_bgen_has_the_dosages_of_the_vcf(run, tmp_path, phased):
    """https://github.com/rgcgithub/regenie/issues/65: how to give imputed dosages to regenie."""
    run("x.vcf")
    run("x.bgen", options=OutputOptions(bgen_phased=phased))
    vcf = read_imputed(tmp_path / "x.vcf")
    samples, sites, ploidy, dosage = read_bgen(tmp_path / "x.bgen")
    assert (samples, sites) == (vcf.samples, vcf.keys)
    assert (ploidy == 2).all()
    np.testing.assert_allclose(dosage, vcf.dosage, atol=UNITS["bgen"])
    run("y.bgen", options=OutputOptions(bgen_bits=16, bgen_phased=phased))
    np.testing.assert_allclose(read_bgen(tmp_path / "y.bgen")[3], vcf.dosage, atol=0.0006)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_regenie_65_a_pgen_has_the_dosages_of_the_vcf(run, tmp_path):
    run("x.vcf")
    vcf = read_imputed(tmp_path / "x.vcf")
    dosage = read_pgen_of(run, tmp_path, vcf)
    np.testing.assert_allclose(dosage, vcf.dosage, atol=UNITS["pgen"])
    rows = [r.split("\t") for r in (tmp_path / "x.vcf").read_text().splitlines() if r[0] != "#"]
    table = [r.split("\t") for r in (tmp_path / "x.pvar").read_text().splitlines() if r[0] != "#"]
    for row, found in zip(rows, table, strict=True):
        assert found[:2] + found[3:] == row[:2] + row[3:8]  # INFO, too
        assert found[2] == (row[2] if row[2] != "." else ":".join([row[0], row[1], "A", "G"]))


def read_pgen_of(run, folder, vcf, which=""):
    """The dosages that a run into a PGEN writes."""
    pytest.importorskip("pgenlib")
    run("x.pgen", which, PGEN)
    return read_pgen(folder / "x.pgen", len(vcf.keys), len(vcf.samples))


def read_haplotypes(path, num_sites, num_samples):
    """Dosages of the haplotypes of a PGEN, (m, N, 2)."""
    pgenlib = pytest.importorskip("pgenlib")
    found = np.empty((num_sites, 2 * num_samples), np.float32)
    with pgenlib.PgenReader(os.fsencode(path)) as reader:
        for i in range(num_sites):
            reader.read_phased_dosages(i, found[i])
    return found.reshape(num_sites, num_samples, 2)


@pytest.mark.parametrize("which", ["", "x"])
def test_a_phased_pgen_has_the_haplotypes_of_the_vcf(run, tmp_path, which):
    """Dosages are those of the PGEN without phase; a male's haplotype is there twice."""
    run("x.vcf", which)
    vcf = read_imputed(tmp_path / "x.vcf")
    dosage = read_pgen_of(run, tmp_path, vcf, which)
    run("p.pgen", which, OutputOptions(pvar="plain", pgen_phased=True))
    np.testing.assert_array_equal(read_pgen(tmp_path / "p.pgen", *dosage.shape), dosage)
    hds = vcf.values["HDS"]
    hds = np.where(np.isnan(hds), hds[:, :, :1], hds)
    found = read_haplotypes(tmp_path / "p.pgen", *dosage.shape)
    assert np.abs(found - hds).max() < 0.0009  # HDS has three decimals, too
    assert (np.abs(found[:, :, 0] - found[:, :, 1]) > 0.1).any()
    assert sorted(p.name for p in tmp_path.glob("p.*")) == ["p.pgen", "p.psam", "p.pvar"]
    for kind in ("pvar", "psam"):
        assert (tmp_path / f"p.{kind}").read_bytes() == (tmp_path / f"x.{kind}").read_bytes()


def test_males_are_haploid_on_x(run, tmp_path):
    run("x.vcf", "x")
    run("x.bgen", "x")
    vcf = read_imputed(tmp_path / "x.vcf")
    haploid = np.zeros((NUM_SITES, NUM_TARGETS), bool)
    haploid[OUTSIDE, ::2] = True
    np.testing.assert_array_equal(vcf.genotypes[:, :, 1] == -2, haploid)
    _, _, ploidy, dosage = read_bgen(tmp_path / "x.bgen")
    np.testing.assert_array_equal(ploidy == 1, haploid)
    np.testing.assert_allclose(dosage, vcf.dosage, atol=UNITS["bgen"])
    told = sexes(tmp_path / "x.sample")
    assert set(told[::2]) == {"1"}
    assert set(told[1::2]) <= {"0", "2"}
    assert "2" in told
    run("p.bgen", "x", OutputOptions(bgen_phased=True))
    np.testing.assert_array_equal(read_bgen(tmp_path / "p.bgen")[2] == 1, haploid)
    dosage = read_pgen_of(run, tmp_path, vcf, "x")  # males as plink2 has them: 0 to 2
    np.testing.assert_allclose(dosage, np.where(haploid, 2, 1) * vcf.dosage, atol=2 * UNITS["pgen"])
    assert sexes(tmp_path / "x.psam") == told


def test_haploids_of_another_contig_are_told(made, plain_copying, tmp_path):
    pytest.importorskip("pgenlib")
    alleles = mosaic_panel(np.random.default_rng(8), NUM_SITES, 40, num_founders=8, switches=0.01)
    alleles = alleles.reshape(NUM_SITES, 40, 1).astype(np.int8)
    alleles = np.concatenate([alleles, np.full_like(alleles, -2)], axis=2)
    panel = make_target(tmp_path, "panel.vcf", alleles[:, :30], contig="chrIV", length=2_000_000)
    target = make_target(tmp_path, "h.vcf", alleles[:, 30:], contig="chrIV", length=2_000_000)
    said = {}
    for out in ("x.vcf", "x.bgen", "x.pgen"):
        extra = PGEN if out == "x.pgen" else OutputOptions()
        done = impute(target, panel, tmp_path / out, model=plain_copying, cm_per_mb=1,
                      output_options=extra, **FIXED)  # fmt: skip
        said[out] = [line for line in done.warnings if "a PGEN holds twice" in line]
    assert not said["x.vcf"] + said["x.bgen"]
    assert said["x.pgen"] == [
        "10 samples are haploid on chrIV: a PGEN holds twice their dosage, from 0 to 2, as it does "
        "for homozygous diploids"
    ]
    vcf = read_imputed(tmp_path / "x.vcf")
    _, _, ploidy, dosage = read_bgen(tmp_path / "x.bgen")
    assert (ploidy == 1).all()
    np.testing.assert_allclose(dosage, vcf.dosage, atol=UNITS["bgen"])
    found = read_pgen(tmp_path / "x.pgen", NUM_SITES, 10)
    np.testing.assert_allclose(found, 2 * vcf.dosage, atol=UNITS["pgen"])


def test_sex_is_not_told_by_an_autosome(run, tmp_path):
    run("x.bgen")
    assert set(sexes(tmp_path / "x.sample")) == {"0"}


def test_one_sample(run, made, tmp_path):
    (tmp_path / "one.txt").write_text("t3\n")
    taken = TargetOptions(samples=tmp_path / "one.txt")
    run("x.vcf", target_options=taken)
    run("x.bgen", target_options=taken)
    vcf = read_imputed(tmp_path / "x.vcf")
    samples, _, _, dosage = read_bgen(tmp_path / "x.bgen")
    assert samples == ["t3"]
    np.testing.assert_allclose(dosage, vcf.dosage, atol=UNITS["bgen"])


@pytest.mark.parametrize("suffix", ["bgen", "pgen"])
def test_other_files_and_fewer_sites(run, made, tmp_path, suffix):
    """--min-r2, --all-typed-sites, --sites-output and --empirical do as beside a VCF."""
    if suffix == "pgen":
        pytest.importorskip("pgenlib")
    lines = (made / "t.vcf").read_text().splitlines()
    cells = lines[-1].split("\t")
    extra = "\t".join(["20", str(int(cells[1]) + 7), "rsX", "C", "T", *cells[5:]])
    target = tmp_path / "more.vcf"
    target.write_text("\n".join([*lines, extra]) + "\n")

    def options(kind):
        return OutputOptions(
            0.9, typed_only=True, sites=tmp_path / f"{kind}.sites.vcf",
            empirical=tmp_path / f"{kind}.typed.vcf", pvar="plain" if kind == "pgen" else "zst",
        )  # fmt: skip

    vcf_summary = run("x.vcf", options=options("vcf"), target=target)
    summary = run(f"x.{suffix}", options=options(suffix), target=target)
    vcf = read_imputed(tmp_path / "x.vcf")
    assert summary.counts == vcf_summary.counts
    assert summary.counts["typed_only"] == 1
    assert summary.counts["below_min_r2"] > 0
    for kind in ("sites", "typed"):
        one, other = (tmp_path / f"{name}.{kind}.vcf" for name in ("vcf", suffix))
        assert one.read_bytes() == other.read_bytes()
    if suffix == "bgen":
        _, sites, _, dosage = read_bgen(tmp_path / "x.bgen")
        assert sites == vcf.keys
    else:
        dosage = read_pgen(tmp_path / "x.pgen", *vcf.dosage.shape)
    assert len(vcf.keys) < NUM_SITES
    np.testing.assert_allclose(dosage, vcf.dosage, atol=UNITS[suffix])


def test_the_type_may_be_named(run, tmp_path):
    run("x.bgen", options=OutputOptions(output_type="bgen"))
    assert {path.name for path in tmp_path.iterdir()} == {"x.bgen", "x.bgen.bgi", "x.sample"}


@pytest.mark.parametrize(
    ("out", "words", "told"),
    [
        ("x.bgen", "--format GT,DS", "--format names fields of a VCF"),
        ("x.pgen", "--format GT,DS,GP,HDS", "--format names fields of a VCF"),
        ("x.bgen", "--digits 2", "--digits counts decimals, which the output"),
        ("x.bgen", "--join-multiallelics", "has a variant for each ALT"),
        ("x.pgen", "--join-multiallelics", "has a variant for each ALT"),
        ("x.vcf", "--bgen-bits 16", "--bgen-bits says how a BGEN is written"),
        ("x.pgen", "--bgen-phased", "--bgen-phased says how a BGEN is written"),
        ("x.bcf", "--bgen-compression none", "--bgen-compression says how a BGEN is written"),
        ("x.bgen", "--pgen-phased", "--pgen-phased says how a PGEN is written"),
        ("x.vcf.gz", "--pgen-phased", "--pgen-phased says how a PGEN is written"),
        ("x.bgen", "--pvar plain", "--pvar says how a PGEN is written"),
        ("-", "-O bgen", "BGEN cannot be written to standard output"),
        ("x", "-O pgen", "PGEN cannot be written to x: it is a set of files"),
        ("x.vcf", "-O bgen", "--output-type bgen is bgen, but the output x.vcf"),
        ("x.bgen", "--sites-output s.bgen", "sites without samples are written as VCF or BCF"),
        ("x.vcf", "--empirical e.pgen", "typed sites as if they were not typed are written as"),
        ("x.bgen", "--samples-file x.sample", "x.sample is also the list of samples"),
        ("x.bgen", "--excluded-sites x.bgen.bgi", "x.bgen.bgi is also the index of x.bgen"),
        ("x.pgen", "--array-fit x.psam", "x.psam is also the table of samples of x.pgen"),
    ],
)
def test_what_a_format_cannot_have_is_one_line(made, tmp_path, monkeypatch, out, words, told):
    monkeypatch.chdir(tmp_path)
    if "x.sample" in words:
        Path("x.sample").write_text("t1\n")
    before = sorted(os.listdir())
    done = CliRunner().invoke(
        app,
        ["impute", str(made / "t.vcf"), "-p", str(made / "panel.h5"), "-o", out, *words.split()],
    )
    assert isinstance(done.exception, InputError), done.output
    assert told in str(done.exception)
    assert done.exception.hint or "also the" in told
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("option", "value"), [("bgen_bits", 0), ("bgen_bits", 33), ("bgen_compression", "gzip")]
)
def test_values_that_are_no_choice(run, option, value):
    with pytest.raises(InputError, match=option):
        run("x.bgen", options=OutputOptions(**{option: value}))
    with pytest.raises(InputError, match="pvar is 'gz'"):
        run("x.pgen", options=OutputOptions(pvar="gz"))


@pytest.mark.needs_program("bcftools")
@pytest.mark.parametrize("name", ["my sample", "0", "#a"])
def test_a_name_that_a_table_cannot_hold(run, made, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    text = (made / "t.vcf").read_text()
    Path("t.vcf").write_text(text.replace("\tt1\t", f"\t{name}\t"))
    with pytest.raises(InputError, match=r"which \.sample, beside .*x\.bgen, cannot hold") as found:
        run("x.bgen", target=Path("t.vcf"))
    assert os.listdir() == ["t.vcf"]
    run("x.vcf", target=Path("t.vcf"))
    listed, command = found.value.hint.split("write the samples' new names into ")[1].split(
        ", one a line, then: "
    )
    Path(listed).write_text("".join(f"s{i}\n" for i in range(NUM_TARGETS)))
    subprocess.run(shlex.split(command), check=True)
    run("x.bgen", target=Path(shlex.split(command)[-2]))
    assert read_bgen("x.bgen")[0][1] == "s1"


def test_an_error_in_a_window_leaves_nothing(run, tmp_path, monkeypatch):
    from ragimpute.imputation import windows

    monkeypatch.setattr(windows, "correlation", lambda *_: 1 / 0)
    for out in ("x.bgen", "x.pgen"):
        if out == "x.pgen":
            pytest.importorskip("pgenlib")
        with pytest.raises(ZeroDivisionError):
            run(out)
    assert os.listdir(tmp_path) == []


@pytest.mark.needs_program("plink2")
@pytest.mark.parametrize("suffix", ["bgen", "pgen"])
def test_phase_writes_no_sets_and_names_plink2(made, tmp_path, monkeypatch, suffix):
    from ragimpute.phasing.phase import phase

    monkeypatch.chdir(tmp_path)
    target, panel = made / "t.vcf", made / "panel.h5"
    with pytest.raises(InputError, match="phased genotypes are written as VCF or BCF") as found:
        phase(target, panel, f"my x.{suffix}")
    written, command = found.value.hint.removeprefix("write ").split(", and make the other of it: ")
    phase(target, panel, shlex.split(written)[0])
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    assert Path(f"my x.{suffix}").exists()


@pytest.mark.needs_program("plink2")
@pytest.mark.parametrize("suffix", ["bgen", "pgen"])
def test_merged_batches_become_a_set_by_plink2(run, made, tmp_path, monkeypatch, suffix):
    from ragimpute.jobs.merge import merge

    monkeypatch.chdir(tmp_path)
    halves = [[f"t{i}" for i in range(NUM_TARGETS)][s] for s in (slice(0, 10), slice(10, None))]
    for name, half in zip("ab", halves, strict=True):
        Path(f"{name}.txt").write_text("\n".join(half))
        run(f"{name}.vcf.gz", target_options=TargetOptions(samples=Path(f"{name}.txt")))
    with pytest.raises(InputError, match="merged batches are written as VCF or BCF") as found:
        merge(["a.vcf.gz", "b.vcf.gz"], f"all.{suffix}")
    written, command = found.value.hint.removeprefix("write ").split(", and make the other of it: ")
    merge(["a.vcf.gz", "b.vcf.gz"], written)
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    vcf = read_dosages(written)
    if suffix == "bgen":
        dosage = read_bgen("all.bgen")[3]
    else:
        dosage = read_pgen("all.pgen", *vcf.dosage.shape)
    np.testing.assert_allclose(dosage, vcf.dosage, atol=UNITS[suffix])


def joined_regions(run, suffix, options, other):
    """Two regions that follow one another, and what merge says of them."""
    from ragimpute.jobs.merge import merge
    from ragimpute.sites import Region

    for name, text in (("a", "20:1-1050000"), (other, "20:1050001-2000000")):
        run(f"{name}.{suffix}", options=options, region=Region.parse(text))
    with pytest.raises(InputError, match=f"a.{suffix} is a {suffix.upper()}, which merge") as found:
        merge([f"a.{suffix}", f"{other}.{suffix}"], f"all.{suffix}")
    return found.value.hint.split("are joined by: ")[1]


@pytest.mark.needs_program("cat-bgen")
def test_regions_of_bgen_are_joined_by_the_command(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = joined_regions(run, "bgen", OutputOptions(), "my b")
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    run("whole.bgen")
    found, whole = read_bgen(shlex.split(command)[-1]), read_bgen("whole.bgen")
    assert found[1] == whole[1]
    np.testing.assert_allclose(found[3], whole[3], atol=UNITS["bgen"])


@pytest.mark.needs_program("plink2")
@pytest.mark.parametrize("pvar", ["zst", "plain"])
def test_regions_of_pgen_are_joined_by_the_command(run, tmp_path, monkeypatch, pvar):
    pytest.importorskip("pgenlib")
    monkeypatch.chdir(tmp_path)
    command = joined_regions(run, "pgen", OutputOptions(pvar=pvar), "b")
    subprocess.run(command, shell=True, check=True, capture_output=True)
    run("whole.pgen")
    hint = joined_regions(run, "pgen", OutputOptions(pvar=pvar), "my b")
    assert hint.startswith("(after giving the files names without blanks) printf '%s\\n' a my_b >")
    found, whole = (
        read_pgen(path, NUM_SITES, NUM_TARGETS)
        for path in (f"{shlex.split(command)[-1]}.pgen", "whole.pgen")
    )
    np.testing.assert_allclose(found, whole, atol=1e-3)


# --- plink2 --------------------------------------------------------------------------------------


def plink2(*words):
    """Run plink2; what it says."""
    done = subprocess.run(["plink2", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def imported(run, which=""):
    """Words by which plink2 reads the same run as VCF, BGEN and PGEN."""
    pytest.importorskip("pgenlib")
    pytest.importorskip("zstandard")
    for out in ("x.vcf.gz", "x.bgen", "x.pgen"):
        run(out, which)
    return {
        "vcf": ["--vcf", "x.vcf.gz", "dosage=DS"],
        "bgen": ["--bgen", "x.bgen", "ref-first"],
        "pgen": ["--pfile", "x", "vzs"],
    }


@pytest.mark.needs_program("plink2")
def test_plink2_exports_our_dosages(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = imported(run)
    vcf = read_imputed(tmp_path / "x.vcf.gz")
    for kind in ("bgen", "pgen"):
        said = plink2(*words[kind], "--export", "vcf", "vcf-dosage=DS-force", "--out", kind)
        assert "Warning" not in said
        back = read_dosages(f"{kind}.vcf")
        assert (back.samples, back.sites.keys()) == (vcf.samples, vcf.keys)
        np.testing.assert_allclose(back.dosage, vcf.dosage, atol=UNITS[kind])


@pytest.mark.needs_program("plink2")
def test_plink2_exports_our_haplotypes(run, tmp_path, monkeypatch):
    """The HDS that plink2 writes to a VCF are ours, and so is what it reads of our VCF."""
    pytest.importorskip("zstandard")
    monkeypatch.chdir(tmp_path)
    run("x.vcf.gz")
    run("x.pgen", options=OutputOptions(pgen_phased=True))
    hds = read_imputed(tmp_path / "x.vcf.gz").values["HDS"]
    for name, words in (
        ("ours", ["--pfile", "x", "vzs"]), ("read", ["--vcf", "x.vcf.gz", "dosage=HDS"]),
    ):  # fmt: skip
        plink2(*words, "--export", "vcf", "vcf-dosage=HDS-force", "--out", name)
        np.testing.assert_allclose(read_hds(f"{name}.vcf"), hds, atol=0.0011)


def read_hds(path):
    """HDS, the last field of a VCF's samples: (m, N, 2)."""
    rows = [row.split("\t")[9:] for row in Path(path).read_text().splitlines() if row[0] != "#"]
    return np.array([[c.rsplit(":", 1)[-1].split(",") for c in row] for row in rows], float)


@pytest.mark.needs_program("plink2")
def test_plink2_exports_haploid_males(run, tmp_path, monkeypatch):
    """Males are haploid outside the PAR; a VCF that plink2 writes shows them so."""
    monkeypatch.chdir(tmp_path)
    imported(run, "x")
    vcf = read_imputed(tmp_path / "x.vcf.gz")
    for kind, words in (
        ("bgen", ["--bgen", "x.bgen", "ref-first", "--sample", "x.sample"]),
        ("pgen", ["--pfile", "x", "vzs"]),
    ):
        plink2(*words, "--split-par", "b37", "--export", "vcf", "vcf-dosage=DS-force",
               "--output-chr", "26", "--out", kind)  # fmt: skip
        back = {}
        for row in (tmp_path / f"{kind}.vcf").read_text().splitlines():
            if row[0] != "#":
                cells = row.split("\t")
                back[int(cells[1])] = [cell.split(":") for cell in cells[9:]]
        assert list(back) == [key[0] for key in vcf.keys]
        for i, (position, _, _) in enumerate(vcf.keys):
            for j, (genotype, dosage) in enumerate(back[position]):
                male = i >= 80 and j % 2 == 0
                # plink2 shows a haploid in doubt as a heterozygote: its dosage is 1 of 2.
                doubled = male and "/" in genotype
                assert not doubled or abs(vcf.dosage[i, j] - 0.5) < 0.06
                assert male or "/" in genotype
                wanted = (2 if doubled else 1) * vcf.dosage[i, j]
                assert abs(float(dosage) - wanted) < 2 * UNITS[kind]


@pytest.mark.needs_program("plink2")
def test_regenie_320_a_gwas_gives_the_same_by_any_format(run, tmp_path, monkeypatch):
    """https://github.com/rgcgithub/regenie/issues/320: -log10 P of .94 in place of 18.2."""
    monkeypatch.chdir(tmp_path)
    words = imported(run)
    vcf = read_imputed(tmp_path / "x.vcf.gz")
    rng = np.random.default_rng(3)
    cause = int(np.argmax(vcf.dosage.var(axis=1)))
    trait = 2 * vcf.dosage[cause] + rng.normal(0, 0.7, NUM_TARGETS)
    rows = [f"{name}\t{value:.6f}" for name, value in zip(vcf.samples, trait, strict=True)]
    Path("trait.txt").write_text("\n".join(["#IID\ty", *rows]) + "\n")
    found = {}
    for kind, given in words.items():
        plink2(*given, "--pheno", "trait.txt", "--glm", "allow-no-covars", "omit-ref",
               "--out", kind)  # fmt: skip
        head, *lines = (line.split("\t") for line in
                        Path(f"{kind}.y.glm.linear").read_text().splitlines())  # fmt: skip
        place = [head.index(name) for name in ("BETA", "SE", "P")]
        found[kind] = np.array([[float(line[k]) if line[k] != "NA" else np.nan for k in place]
                                for line in lines])  # fmt: skip
    tested = vcf.dosage.var(axis=1) > 0.05
    assert tested.sum() > 100
    assert found["vcf"][cause, 2] < 1e-6
    for kind, share in (("bgen", 0.05), ("pgen", 0.02)):
        beta, error, p = found[kind][tested].T
        usual_beta, usual_error, usual_p = found["vcf"][tested].T
        assert np.abs((beta - usual_beta) / usual_error).max() < share
        np.testing.assert_allclose(error, usual_error, rtol=share)
        assert np.abs(np.log10(p) - np.log10(usual_p)).max() < 2 * share * max(
            1, -np.log10(usual_p).min()
        )
