"""Imputed output: read back by cyvcf2 and bcftools; VCF equals BCF; whole or nothing."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import textwrap

import cyvcf2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragimpute.bgzf import BLOCK_BYTES, BgzfWriter
from ragimpute.errors import InputError
from ragimpute.sites import Region, Sites
from ragimpute.vcf import contigs_of, read_dosages, read_target
from ragimpute.vcf_fields import FORMATS, INFOS, check_fields
from ragimpute.vcf_text import RowFormatter  # noqa: F401  (used in a subprocess)
from ragimpute.vcf_write import ImputedBlock, ImputedWriter, output_kind

ALL = ("GT", "DS", "GP", "HDS", "AP")


def text(values):
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def make_block(prob, *, called=None, position=None, contig="20", ref=None, alt=None, info=None):
    """A block; typed where a genotype was observed."""
    prob = np.asarray(prob, dtype=np.float32)
    m = len(prob)
    if called is None:
        called = np.full(prob.shape, -1, dtype=np.int8)
        called[np.isnan(prob)] = -2
    if position is None:
        position = 1_000 + 10 * np.arange(m)
    sites = Sites(
        contig,
        np.asarray(position, dtype=np.int32),
        text(ref or ["A"] * m),
        text(alt or ["G"] * m),
        text([f"rs{i}" if i % 2 else "." for i in range(m)]),
    )
    if info is None:
        af = np.nanmean(prob, axis=(1, 2))
        info = {"AF": af, "MAF": np.minimum(af, 1 - af), "DR2": af}
    return ImputedBlock(sites, prob, called, info, (called >= 0).any(axis=(1, 2)))


def random_block(seed, num_sites, num_samples, *, haploid=(), **options):
    """Mostly rare alleles; every tenth site typed."""
    rng = np.random.default_rng(seed)
    prob = rng.beta(0.1, 0.5, size=(num_sites, num_samples, 2)).astype(np.float32)
    prob[rng.random(prob.shape) < 0.5] = 0
    called = np.full(prob.shape, -1, dtype=np.int8)
    called[::10] = rng.integers(0, 2, size=called[::10].shape)
    prob[:, list(haploid), 1] = np.nan
    called[:, list(haploid), 1] = -2
    return make_block(prob, called=called, **options)


def write(path, *blocks, contigs=(("20", 63_025_520),), samples=None, **options):
    if samples is None:
        samples = [f"s{i}" for i in range(blocks[0].called.shape[1])]
    with ImputedWriter(path, samples=samples, contigs=contigs, **options) as writer:
        for block in blocks:
            writer.write(block)
    return path


def view(path, *options):
    """What bcftools prints; it may not warn."""
    done = subprocess.run(
        ["bcftools", "view", "--no-version", *options, str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def rows(printed):
    return [line.split("\t") for line in printed.splitlines() if not line.startswith("#")]


def test_exact_text(tmp_path):
    nan = np.nan
    prob = [
        [[0.0, 0.0], [0.1, 0.9], [0.25, nan]],
        [[1.0, 1.0], [0.5, 0.51], [1.0, nan]],
        [[0.9996, 0.0004], [0.3, 0.3], [0.0004, nan]],
    ]
    called = np.full((3, 3, 2), -1, dtype=np.int8)
    called[:, 2, 1] = -2
    called[2, :, 0] = [0, -1, 1]
    called[2, :2, 1] = [1, -1]
    info = {
        "AF": np.array([0.25, 1 / 3, 1.23456789e-5]),
        "DR2": np.array([0.98765, np.nan, 0.0]),
    }
    block = make_block(prob, called=called, info=info)
    path = write(tmp_path / "x.vcf", block, fields=ALL)
    lines = path.read_text().splitlines()
    table = [line.split("\t")[7:] for line in lines if not line.startswith("#")]
    fields = "GT:DS:GP:HDS:AP1:AP2"
    assert table == [
        [
            "AF=0.25;DR2=0.9876;IMP",
            fields,
            "0|0:0:1,0,0:0,0:0:0",
            "0|1:1:0.09,0.82,0.09:0.1,0.9:0.1:0.9",
            "0:0.25:0.75,0.25:0.25:0.25:.",
        ],
        [
            "AF=0.333333;IMP",
            fields,
            "1|1:2:0,0,1:1,1:1:1",
            "0|1:1.01:0.245,0.5,0.255:0.5,0.51:0.5:0.51",
            "1:1:0,1:1:1:.",
        ],
        [
            "AF=1.23457e-05;DR2=0;TYPED",
            fields,
            "0|1:1:0,1,0:1,0:1:0",
            "0|0:0.6:0.49,0.42,0.09:0.3,0.3:0.3:0.3",
            "1:0:1,0:0:0:.",
        ],
    ]
    names = [line.split("ID=")[1].split(",")[0] for line in lines if line.startswith("##FORMAT")]
    assert names == fields.split(":")
    assert not any("command" in line for line in lines)
    view(path)


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_read_back(tmp_path, suffix):
    block = random_block(1, 300, 9, haploid=(2, 5))
    path = write(tmp_path / f"x{suffix}", block, fields=("GT", "DS", "GP", "HDS"))
    prob, called = block.allele_prob, block.called
    found = read_dosages(path)
    np.testing.assert_allclose(found.dosage, np.nansum(prob, axis=2), atol=5.1e-4)
    assert found.ploidy.tolist() == [2, 2, 1, 2, 2, 1, 2, 2, 2]
    np.testing.assert_array_equal(found.typed, block.typed)
    np.testing.assert_allclose(found.dr2, block.info["DR2"], atol=5.1e-5)
    assert found.sites.keys() == block.sites.keys()
    assert found.sites.id.tolist() == block.sites.id.tolist()
    target = read_target(path)
    expected = np.where(called >= 0, called, prob > 0.5)
    expected[np.isnan(prob)] = -2
    np.testing.assert_array_equal(target.alleles, expected)
    assert target.phased.all()
    for i, record in enumerate(cyvcf2.VCF(str(path))):
        gp, hds = record.format("GP"), record.format("HDS")
        np.testing.assert_allclose(np.nansum(gp, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(np.nansum(hds, axis=1), found.dosage[i], atol=1.6e-3)
        expected_ds = gp[:, 1] + 2 * np.nan_to_num(gp[:, 2])
        np.testing.assert_allclose(expected_ds, found.dosage[i], atol=2.1e-3)
        assert np.float32(record.INFO["AF"]) == pytest.approx(block.info["AF"][i], rel=1e-5)
        assert record.FILTER is None


probability = st.one_of(
    st.sampled_from([0.0, 1.0, 0.5, 0.00025, 0.0005, 0.9995, 0.0015]),
    st.floats(0, 1, width=32),
)


@st.composite
def blocks(draw):
    m, n = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    values = draw(st.lists(probability, min_size=2 * m * n, max_size=2 * m * n))
    prob = np.array(values, dtype=np.float32).reshape(m, n, 2)
    alleles = st.lists(st.integers(-1, 1), min_size=2 * m * n, max_size=2 * m * n)
    called = np.array(draw(alleles), dtype=np.int8).reshape(m, n, 2)
    haploid = draw(st.lists(st.booleans(), min_size=m * n, max_size=m * n))
    haploid = np.array(haploid).reshape(m, n)  # by site, too: as on X
    prob[:, :, 1][haploid] = np.nan
    called[:, :, 1][haploid] = -2
    alphabet = st.text("ACGT", min_size=1, max_size=40)
    ref, alt = (draw(st.lists(alphabet, min_size=m, max_size=m)) for _ in range(2))
    frequency = st.one_of(st.floats(0, 1, width=32), st.just(np.nan), st.just(1e-7))
    info = {
        name: np.array(draw(st.lists(frequency, min_size=m, max_size=m)), dtype=np.float32)
        for name in draw(st.sets(st.sampled_from(sorted(INFOS))))
    }
    step = draw(st.lists(st.integers(0, 30_000), min_size=m, max_size=m))
    position = 1 + np.cumsum(step)
    return make_block(prob, called=called, position=position, ref=ref, alt=alt, info=info)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(block=blocks(), fields=st.permutations(["DS", "GP", "HDS", "AP"]), count=st.integers(0, 4))
def test_vcf_equals_bcf(tmp_path, block, fields, count):
    chosen = ["GT", *fields[:count]]
    printed = []
    for suffix in (".vcf", ".bcf"):
        path = write(tmp_path / f"x{suffix}", block, fields=chosen)
        printed.append(view(path))
    assert printed[0] == printed[1]
    own = (tmp_path / "x.vcf").read_text()
    assert rows(own) == rows(printed[0])
    target = read_target(tmp_path / "x.bcf")
    seen = block.called >= 0
    np.testing.assert_array_equal(target.alleles[seen], block.called[seen])


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf"])
def test_any_number_of_threads_and_blocks_gives_the_same_bytes(tmp_path, suffix):
    whole = random_block(2, 3_000, 40)
    made = []
    for threads, step in ((1, 3_000), (2, 3_000), (3, 700), (1, 1)):
        parts = [
            ImputedBlock(
                whole.sites.take(s),
                whole.allele_prob[s],
                whole.called[s],
                {name: values[s] for name, values in whole.info.items()},
                whole.typed[s],
            )
            for s in (slice(i, i + step) for i in range(0, 3_000, step))
        ]
        path = write(tmp_path / f"{threads}.{step}{suffix}", *parts, threads=threads)
        index = next(p for p in tmp_path.glob(f"{path.name}.*i"))
        made.append((path.read_bytes(), index.read_bytes()))
    assert all(pair == made[0] for pair in made)
    assert len(made[0][0]) > 3 * 65_536


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf"])
@pytest.mark.parametrize("top", [2_000_000, 2**30])
def test_index(tmp_path, suffix, top):
    rng = np.random.default_rng(3)
    made = {}
    for contig in ("20", "X"):
        position = np.sort(rng.integers(1, top, size=2_500))
        ref = [
            "A" * int(n) for n in rng.choice([1, 2, 300, 40_000], 2_500, p=[0.9, 0.08, 0.01, 0.01])
        ]
        prob = rng.random((2_500, 4, 2))
        made[contig] = make_block(prob, position=position, contig=contig, ref=ref)
    contigs = [("19", None), ("20", None), ("21", 10), ("X", None)]
    path = write(tmp_path / f"x{suffix}", *made.values(), contigs=contigs)
    name = ".tbi" if suffix == ".vcf.gz" and top < 2**29 else ".csi"
    assert sorted(os.listdir(tmp_path)) == [path.name, path.name + name]
    assert contigs_of(path) == {"20": None, "X": None}
    for contig, block in made.items():
        begin = block.sites.position_bp.astype(np.int64)
        end = begin + [len(ref) for ref in block.sites.ref]  # half-open
        for start in [1, top - 10, *rng.integers(1, top, size=12).tolist()]:
            stop = start + int(rng.choice([0, 100, 20_000, top // 8]))
            inside = (begin <= stop) & (end > start)
            printed = rows(view(path, "-r", f"{contig}:{start}-{stop}"))
            assert [int(row[1]) for row in printed] == begin[inside].tolist()
    part = read_dosages(path, region=Region("chrX", top // 2, top // 2 + top // 8))
    position = made["X"].sites.position_bp
    keep = (position >= top // 2) & (position < top // 2 + top // 8)
    assert part.sites.position_bp.tolist() == position[keep].tolist()
    count = ["bcftools", "index", "-n", str(path)]
    assert subprocess.run(count, capture_output=True, text=True, check=True).stdout == "5000\n"


def test_no_sites(tmp_path):
    for suffix in (".vcf", ".vcf.gz", ".bcf"):
        path = write(tmp_path / f"x{suffix}", samples=["a", "b"])
        assert rows(view(path)) == []
        if suffix != ".vcf":
            assert rows(view(path, "-r", "20:1-100")) == []


def test_header(tmp_path):
    block = random_block(4, 3, 2)
    lines = ["##panel=x.h5"]
    path = write(tmp_path / "x.vcf", block, command="ragimpute  impute\n--x", header_lines=lines)
    header = [line for line in path.read_text().splitlines() if line.startswith("##")]
    assert "##ragimpute_command=ragimpute impute --x" in header
    assert "##panel=x.h5" in header
    assert "##contig=<ID=20,length=63025520>" in header
    declared = [line for line in header if line.startswith(("##INFO", "##FORMAT"))]
    assert len(declared) == len(INFOS) + 2 + 3
    assert all('Description="' in line for line in declared)
    with pytest.raises(ValueError, match="must begin with ##"):
        write(tmp_path / "y.vcf", block, header_lines=["panel"])


def test_naive_concatenation(tmp_path):
    whole = random_block(5, 2_000, 20)
    for suffix in (".vcf.gz", ".bcf"):
        paths = []
        for k, rows_of in enumerate((slice(0, 900), slice(900, 2_000))):
            info = {name: values[rows_of] for name, values in whole.info.items()}
            arrays = (getattr(whole, n)[rows_of] for n in ("allele_prob", "called"))
            part = ImputedBlock(whole.sites.take(rows_of), *arrays, info, whole.typed[rows_of])
            paths.append(str(write(tmp_path / f"{k}{suffix}", part)))
        joined = str(tmp_path / f"joined{suffix}")
        subprocess.run(
            ["bcftools", "concat", "-n", "-o", joined, *paths], check=True, capture_output=True
        )
        write(tmp_path / f"whole{suffix}", whole)
        assert view(joined) == view(tmp_path / f"whole{suffix}")


def test_standard_output(tmp_path):
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from test_vcf_write import random_block, write
        write("-", random_block(6, 50, 3))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), os.path.dirname(__file__)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    write(tmp_path / "x.vcf", random_block(6, 50, 3))
    assert done.stdout == (tmp_path / "x.vcf").read_bytes()


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_an_exception_leaves_nothing_and_keeps_the_old_file(tmp_path, suffix):
    block = random_block(7, 500, 30)
    path = tmp_path / f"x{suffix}"

    def broken():
        with ImputedWriter(
            path, samples=[f"s{i}" for i in range(30)], contigs=[("20", None)], threads=2
        ) as writer:
            writer.write(block)
            assert not path.exists() or path.read_bytes() == old
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert os.listdir(tmp_path) == []
    write(path, random_block(8, 5, 30))
    old, listed = path.read_bytes(), sorted(os.listdir(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        broken()
    assert path.read_bytes() == old
    assert sorted(os.listdir(tmp_path)) == listed


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_full_disk(tmp_path, suffix):
    code = """
        import resource, signal, sys
        sys.path.insert(0, sys.argv[1])
        from test_vcf_write import InputError, RowFormatter, random_block, write
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        block = random_block(9, 3_000, 100)
        RowFormatter(["GT", "DS", "GP"])  # compiles; numba keeps a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            write(sys.argv[2], block, threads=2)
        except InputError as error:
            print("refused:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), os.path.dirname(__file__), f"x{suffix}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"refused: cannot write x{suffix}: File too large"), done.stdout
    assert os.listdir(tmp_path) == []


def test_paths_that_cannot_be_written(tmp_path):
    block = random_block(10, 2, 1)
    with pytest.raises(InputError, match=r"cannot write .*x\.bcf: No such file"):
        write(tmp_path / "none" / "x.bcf", block)
    (tmp_path / "f.vcf").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        write(tmp_path / "f.vcf", block)
    for name in ("x", "x.txt", ".vcf", "x.h5", "x.gz"):
        with pytest.raises(InputError, match="no suffix"):
            write(tmp_path / name, block)
    assert os.listdir(tmp_path) == ["f.vcf"]
    assert output_kind("-") == "vcf"
    assert output_kind("a.vcf.bgz") == "vcf.gz"


def test_an_old_index_does_not_outlive_its_file(tmp_path):
    path = tmp_path / "x.vcf.gz"
    (tmp_path / "x.vcf.gz.csi").write_bytes(b"old")
    write(path, random_block(11, 20, 2))
    assert sorted(os.listdir(tmp_path)) == ["x.vcf.gz", "x.vcf.gz.tbi"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["GT", "GL"], "no output field 'GL'"),
        ([], "no output field was chosen"),
        (["GT", "DS", "DS"], "given twice"),
        (["AP", "AP1"], "given twice"),
        (["DS", "GT"], "GT must be the first"),
    ],
)
def test_fields_that_cannot_be(fields, message):
    with pytest.raises(InputError, match=message):
        check_fields(fields)
    assert check_fields(ALL) == list(FORMATS)


@pytest.mark.parametrize("suffix", [".vcf", ".bcf"])
def test_blocks_that_do_not_fit(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"

    def refuse(message, *made, samples=("a", "b")):
        with pytest.raises(ValueError, match=message):
            write(path, *made, samples=samples, contigs=[("20", None), ("21", None)])
        assert os.listdir(tmp_path) == []

    good = random_block(12, 4, 2)
    refuse("expected \\(4, 3, 2\\)", good, samples=("a", "b", "c"))
    refuse("not in the header", random_block(1, 4, 2, contig="7"))
    refuse("not sorted", good, random_block(1, 4, 2, position=[1_029, 1_030, 1_031, 1_032]))
    refuse("not sorted", random_block(1, 3, 2, position=[5, 4, 6]))
    refuse("not sorted", random_block(1, 3, 2, position=[0, 4, 6]))
    refuse("comes back", good, random_block(1, 1, 2, contig="21"), random_block(1, 1, 2))
    for wrong in (-0.1, 1.1, np.nan):
        prob = good.allele_prob.copy()
        prob[3, 1, 0] = wrong
        refuse("must be in \\[0, 1\\]", make_block(prob, info={}))
    refuse("INFO \\['XX'\\]", make_block(good.allele_prob, info={"XX": np.zeros(4)}))
    refuse("shape \\(3,\\)", make_block(good.allele_prob, info={"AF": np.zeros(3)}))


def test_data_that_do_not_compress(tmp_path):
    data = np.random.default_rng(1).bytes(5 * BLOCK_BYTES + 77)
    for threads in (1, 2):
        path = tmp_path / f"{threads}.gz"
        with path.open("wb") as file:
            writer = BgzfWriter(file, threads=threads)
            for start in range(0, len(data), 40_000):
                writer.write(data[start : start + 40_000])
            writer.finish()
        assert gzip.decompress(path.read_bytes()) == data
        first, second, inside = writer.virtual_offsets(
            np.array([0, BLOCK_BYTES, BLOCK_BYTES + 5])
        ).tolist()
        assert first == 0
        assert inside - second == 5
        assert gzip.decompress(path.read_bytes()[second >> 16 :]) == data[BLOCK_BYTES:]
