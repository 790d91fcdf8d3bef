"""The original's maps: what it reads is what is written, and nothing that acts is read."""

from __future__ import annotations

import csv
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names, random_alleles

from ragimpute.errors import InputError
from ragimpute.panel.reader import Panel
from ragimpute.preparation.original_maps import export_maps, read_maps
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.preparation.prepare import prepare
from tests.preparation.test_prepare import write_vcf

NAMES = ("pop_to_idx.bin", "pos_to_idx.bin", "type_to_idx.bin")


def rows_of(rng, num_sites, num_samples, *, haploid=0):
    """Records of a VCF: random alleles, of which the first samples are haploid."""
    alleles = random_alleles(rng, num_sites, num_samples)
    rows = []
    for site, pairs in enumerate(alleles.tolist()):
        calls = [f"{a}" if i < haploid else f"{a}|{b}" for i, (a, b) in enumerate(pairs)]
        rows.append(("20", 1_000 + 10 * site, "A", "G", *calls))
    return rows


def write_populations(path, population):
    """A table as 1000 Genomes has it: groups within populations."""
    lines = ["sample pop super_pop gender"]
    lines += [f"s{i} {p}{i % 2} {p} male" for i, p in enumerate(population)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def source(tmp_path):
    """A panel VCF of 60 sites and 12 samples, and the table of their populations."""
    rng = np.random.default_rng(2)
    vcf = write_vcf(tmp_path / "panel.vcf", rows_of(rng, 60, 12), samples=names(12))
    return vcf, write_populations(tmp_path / "pop.txt", ["EUR", "AFR", "EAS"] * 4)


@pytest.fixture
def maps(tmp_path, source):
    """The maps of that panel with windows of 10 sites, and populations in an order of their own."""
    folder = tmp_path / "maps"
    folder.mkdir()
    write(folder, "pop_to_idx.bin", {"EUR": 0, "EAS": 1, "AFR": 2, "Global": 3})
    write(folder, "pos_to_idx.bin", {1_000 + 10 * i: i for i in range(60)})
    write(folder, "type_to_idx.bin", {"REF": 0, "HET": 1, "HOM": 2, "AF": 3})
    text = "".join(f"{i},{i + 10}\n" for i in range(0, 60, 10))
    (folder / "segments.csv").write_text("start,end\n" + text)
    return folder


def write(folder, name, numbers, protocol=4):
    """A pickled dictionary."""
    (folder / name).write_bytes(pickle.dumps(numbers, protocol=protocol))


def as_the_original_reads(folder):
    """pickle.load, numpy's load and the first two columns of the CSV, as its dataset does."""
    dicts = {}
    for name in NAMES:
        with (folder / name).open("rb") as file:
            dicts[name.removesuffix(".bin")] = pickle.load(file)  # our own file
    freq = np.load(folder / "Freq.npy")
    with (folder / "segments.csv").open() as file:
        _, *lines = csv.reader(file)
    return dicts, freq, np.array([[int(a), int(b)] for a, b in lines])


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 999),
    num_populations=st.integers(1, 7),
    haploid=st.integers(0, 3),
    num_sites=st.integers(1, 40),
)
def test_what_the_original_reads(tmp_path_factory, seed, num_populations, haploid, num_sites):
    """Frequencies as its description says, by a loop over samples."""
    rng = np.random.default_rng(seed)
    num = num_populations + 4
    alleles = random_alleles(rng, num_sites, num)
    alleles[:, :haploid, 1] = -2
    population = [f"p{i % num_populations}" for i in range(num)]
    folder = tmp_path_factory.mktemp("maps")
    write_panel(
        folder / "p.h5", [make_batch(alleles)], samples=names(num), genetic_map=FlatMap(),
        population_of=dict(zip(names(num), population, strict=True)),
    )  # fmt: skip
    said = []
    with Panel.open(folder / "p.h5") as panel:
        export_maps(panel, folder / "maps", said.append)
        windows, at = panel.windows, panel.sites.position_bp
        np.testing.assert_allclose(
            np.load(folder / "maps" / "Freq.npy")[3, -1], panel.af, atol=1e-6
        )
    dicts, freq, read = as_the_original_reads(folder / "maps")
    np.testing.assert_array_equal(read, windows)
    assert dicts["type_to_idx"] == {"REF": 0, "HET": 1, "HOM": 2, "AF": 3}
    assert dicts["pos_to_idx"] == {bp: i for i, bp in enumerate(at.tolist())}
    pops = dicts["pop_to_idx"]
    assert pops["Global"] == max(5, num_populations) == freq.shape[1] - 1
    assert (num_populations > 5) == any("takes row 5" in line for line in said)
    assert freq.dtype == np.float32
    for name in (*sorted(set(population)), "Global"):
        members = [i for i, p in enumerate(population) if name in (p, "Global")]
        for site in range(num_sites):
            kinds, count, copies = [0, 0, 0], 0, 0
            for i in members:
                pair = [a for a in alleles[site, i].tolist() if a >= 0]
                kinds[0 if sum(pair) == 0 else 2 if sum(pair) == len(pair) else 1] += 1
                count, copies = count + sum(pair), copies + len(pair)
            expected = [*(k / len(members) for k in kinds), count / copies]
            np.testing.assert_allclose(freq[:, pops[name], site], expected, atol=1e-6)


def test_a_round_trip(tmp_path, source, maps):
    """A panel that is prepared with its own maps is the same panel."""
    vcf, table = source
    prepare(vcf, tmp_path / "one.h5", cm_per_mb=1.0, populations=table, maps=maps)
    with Panel.open(tmp_path / "one.h5") as panel:
        assert list(panel.populations) == ["EUR", "EAS", "AFR"]
        assert panel.windows.tolist() == [[i, i + 10] for i in range(0, 60, 10)]
        assert [panel.populations[p] for p in panel.population[:3]] == ["EUR", "AFR", "EAS"]
        checksum = panel.checksum
        export_maps(panel, tmp_path / "out")
    done = prepare(
        vcf, tmp_path / "two.h5", cm_per_mb=1.0, populations=table, maps=tmp_path / "out"
    )
    with Panel.open(tmp_path / "two.h5") as panel:
        assert panel.checksum == checksum
        panel.verify()
    assert not [line for line in done.warnings if "Freq" in line or "pos_to_idx" in line]


def test_the_command_writes_and_reads_them(tmp_path, source, command_line):
    vcf, table = source
    base = ("prepare", vcf, "--cm-per-mb", "1", "--populations", table, "-q")
    assert command_line(*base, "-o", tmp_path / "p.h5")[0] == 0
    code, out, err = command_line("info", tmp_path / "p.h5", "--export-maps", tmp_path / "out")
    assert code == 0, err
    for name in ("Freq.npy", "segments.csv", *NAMES):
        assert name in out
    code, _, err = command_line("info", tmp_path / "p.h5", "--export-maps", tmp_path / "out")
    assert code == 1
    assert "already" in err
    code, _, err = command_line(*base, "--maps", tmp_path / "out", "-o", tmp_path / "q.h5")
    assert (code, err) == (0, "")
    code, _, err = command_line("info", vcf, "--export-maps", tmp_path / "no")
    assert code == 1
    assert "hint: " in err
    assert not (tmp_path / "no").exists()


def test_several_alts_of_a_record_share_its_row(tmp_path, maps):
    """The original counts records, a panel ALTs: windows are carried over by position."""
    rows = [list(row) for row in rows_of(np.random.default_rng(2), 60, 12)]
    rows[10][3] = "G,T"
    rows[10][5] = "2|1"
    vcf = write_vcf(tmp_path / "m.vcf", rows, samples=names(12))
    (maps / "pop_to_idx.bin").unlink()
    prepare(vcf, tmp_path / "p.h5", cm_per_mb=1.0, maps=maps)
    with Panel.open(tmp_path / "p.h5") as panel:
        assert panel.num_sites == 61
        assert panel.windows[:3].tolist() == [[0, 10], [10, 21], [21, 31]]
        export_maps(panel, tmp_path / "out")
    read = read_maps(tmp_path / "out")
    np.testing.assert_array_equal(read.position_bp[:12], [*range(1_000, 1_110, 10), 1_100])
    prepare(vcf, tmp_path / "q.h5", cm_per_mb=1.0, maps=tmp_path / "out")
    with Panel.open(tmp_path / "q.h5") as panel:
        assert panel.windows[:3].tolist() == [[0, 10], [10, 21], [21, 31]]


@pytest.mark.parametrize("protocol", range(6))
def test_keys_may_be_numpys(maps, protocol):
    """As the original's scripts make them: positions of an array, names by numpy.unique."""
    at = np.arange(1_000, 1_600, 10, dtype=np.int32)
    write(maps, "pos_to_idx.bin", {bp: np.int64(i) for i, bp in enumerate(at)}, protocol)
    write(
        maps, "pop_to_idx.bin", {p: i for i, p in enumerate(np.unique(["b", "a", "c"]))}, protocol
    )
    read = read_maps(maps)
    assert read.populations == ("a", "b", "c")
    np.testing.assert_array_equal(read.position_bp, at)


class Evil:
    """Makes a pickle that writes a file while it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_runs_nothing(tmp_path, maps):
    for bad in (
        {"EUR": Evil(tmp_path / "ran")},
        Evil(tmp_path / "ran"),
        {Evil(tmp_path / "ran"): 1},
    ):
        for protocol in (0, 2, 4):
            write(maps, "pop_to_idx.bin", bad, protocol)
            with pytest.raises(
                InputError, match=r"is not read: it asks for (io|_io)\.open"
            ) as caught:
                read_maps(maps)
            assert "may run a program" in caught.value.hint
            assert not (tmp_path / "ran").exists()
    np.save(maps / "Freq.npy", np.array([{"a": Evil(tmp_path / "ran")}]), allow_pickle=True)
    write(maps, "pop_to_idx.bin", {"EUR": 0})
    with pytest.raises(InputError, match=r"Freq\.npy cannot be read"):
        read_maps(maps)
    assert not (tmp_path / "ran").exists()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_pickles_are_one_line(tmp_path_factory, data):
    """Bytes that are cut, changed or made up end in an error of ours, or in a dictionary."""
    folder = tmp_path_factory.mktemp("maps")
    whole = pickle.dumps({"EUR": 0, "AFR": np.int64(1)}, protocol=data.draw(st.integers(0, 5)))
    octets = bytearray(data.draw(st.one_of(st.binary(max_size=60), st.just(whole))))
    for _ in range(data.draw(st.integers(0, 3))):
        if octets:
            octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    (folder / "pop_to_idx.bin").write_bytes(octets[: data.draw(st.integers(0, len(octets)))])
    error = None
    try:
        names = read_maps(folder).populations
    except InputError as caught:
        error, names = caught, ()
    assert error is None or "\n" not in error.message
    assert all(isinstance(name, str) for name in names)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pos_to_idx.bin", {1_000: 0}, r"59 of 60 sites .* lacks, such as 1010"),
        ("pos_to_idx.bin", {"1000": 0}, "no dictionary from positions to integers"),
        ("pos_to_idx.bin", {5: 1, 9: 0}, "not sorted: position 5 follows 9"),
        ("pos_to_idx.bin", {5: 1, 9: 1}, "numbers two entries alike"),
        ("pop_to_idx.bin", {"EUR": 0, "SAS": 1}, "has no column that holds nothing but EUR, SAS"),
        ("pop_to_idx.bin", [1, 2], "no dictionary from texts to integers"),
        ("pop_to_idx.bin", {"EUR": 0.5}, "no dictionary from texts to integers"),
        ("segments.csv", "start,end\n0,30\n40,60\n", "line 3: the window 40-60 does not follow"),
        ("segments.csv", "start,end\n5,60\n", "line 2: the window 5-60 does not follow"),
        ("segments.csv", "start,end\n0,50\n", r"end at row 50, but there are 60 rows"),
        ("segments.csv", "start,end\n0,many\n", "line 2: found '0,many'"),
        ("segments.csv", "start,end\n", "has no window"),
        ("Freq.npy", np.zeros((4, 4, 59), np.float32), r"shape \(4, 4, 59\) of float32, expected"),
        ("Freq.npy", np.zeros((2, 4, 60), np.float32), r"shape \(2, 4, 60\)"),
        ("segments_2.csv", "start,end\n0,60\n", "holds 2 files segments"),
    ],
)  # fmt: skip
def test_maps_that_do_not_fit_are_refused(
    tmp_path, source, maps, command_line, name, content, message
):
    if isinstance(content, str):
        (maps / name).write_text(content)
    elif isinstance(content, np.ndarray):
        np.save(maps / name, content)
    else:
        write(maps, name, content)
    vcf, table = source
    code, _, err = command_line(
        "prepare", vcf, "--populations", table, "--maps", maps, "-o", tmp_path / "p.h5",
        "--cm-per-mb", "1", "-q",
    )  # fmt: skip
    assert code == 1
    assert re.search(message, err.replace("\n", " ")), err
    assert "Traceback" not in err
    assert not (tmp_path / "p.h5").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".p.h5")]


def test_folders_that_are_none(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_maps(tmp_path / "x")
    with pytest.raises(InputError, match="holds no maps"):
        read_maps(tmp_path)


def test_what_is_not_used_is_told(tmp_path, source, maps):
    vcf, table = source
    write(maps, "pop_to_idx.bin", {"EUR": 0, "EAS": 1, "SAS": 2, "AFR": 3, "Global": 4})
    write(maps, "pos_to_idx.bin", {990 + 10 * i: i for i in range(62)})
    (maps / "segments.csv").write_text("a,b,c\n0.0,31.0,x\n31,62,y\n")
    np.save(maps / "Freq.npy", np.full((4, 5, 62), 0.7, np.float32))
    with pytest.raises(InputError, match="nothing says which sample") as caught:
        prepare(vcf, tmp_path / "p.h5", cm_per_mb=1.0, maps=maps)
    assert "--populations" in caught.value.hint
    done = prepare(vcf, tmp_path / "p.h5", cm_per_mb=1.0, populations=table, maps=maps)
    told = "\n".join(done.warnings)
    assert "no sample is of SAS" in told
    assert "2 positions of pos_to_idx" in told
    assert "Freq.npy" in told
    with Panel.open(tmp_path / "p.h5") as panel:
        assert list(panel.populations) == ["EUR", "EAS", "AFR"]
        assert panel.windows.tolist() == [[0, 30], [30, 60]]
