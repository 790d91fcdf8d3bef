"""Writing panel.h5: frequencies, populations, haploids, windows; nothing left behind on failure."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest
from panel_fixtures import FlatMap, make_batch, names, random_alleles

from ragimpute.errors import InputError, PanelError
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def write(path, batches, count, **options):
    return write_panel(path, batches, samples=names(count), genetic_map=FlatMap(), **options)


def test_population_frequencies(tmp_path, rng):
    alleles = random_alleles(rng, 80, 30)
    group = [("YRI", "CEU", "CHB")[i % 3] for i in range(30)]
    table = dict(zip(names(30), group, strict=True))
    summary = write(tmp_path / "p.h5", [make_batch(alleles)], 30, population_of=table)
    assert summary.populations == {"CEU": 10, "CHB": 10, "YRI": 10}
    panel = Panel.open(tmp_path / "p.h5")
    assert panel.populations == ["CEU", "CHB", "YRI"]
    assert [panel.populations[i] for i in panel.population] == group
    found = panel.af_population(20, 60)
    assert found.dtype == np.float32
    for p, name in enumerate(panel.populations):
        members = [g == name for g in group]
        np.testing.assert_allclose(found[p], alleles[20:60, members].mean(axis=(1, 2)), rtol=1e-6)
    with pytest.raises(InputError, match=r"29 of 30.*s1, s2, s3 and 26 more"):
        write(tmp_path / "q.h5", [make_batch(alleles)], 30, population_of={"s0": "CEU"})


def test_haploid_samples_give_one_haplotype(tmp_path, rng):
    alleles = random_alleles(rng, 70, 12)
    males = [1, 4, 11]
    alleles[:, males, 1] = -2
    table = {name: ("m" if i in males else "f") for i, name in enumerate(names(12))}
    summary = write(tmp_path / "p.h5", [make_batch(alleles)], 12, population_of=table)
    assert summary.haploid_samples == ["s1", "s4", "s11"]
    panel = Panel.open(tmp_path / "p.h5")
    flat = alleles.reshape(70, 24)
    keep = flat[0] != -2
    assert panel.num_haplotypes == 21
    np.testing.assert_array_equal(panel.haplotype_sample, np.flatnonzero(keep) // 2)
    np.testing.assert_array_equal(panel.haplotypes(0, 70).alleles(), flat[:, keep])
    np.testing.assert_allclose(panel.af, flat[:, keep].mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(panel.af_population(0, 70)[1], alleles[:, males, 0].mean(axis=1))
    first, second = alleles[..., 0], np.where(alleles[..., 1] < 0, alleles[..., 0], alleles[..., 1])
    expected = np.stack([(first + second == g).mean(axis=1) for g in range(3)], axis=1)
    np.testing.assert_allclose(panel.genotype_freq(0, 70), expected, rtol=1e-6)


def test_all_haploid_in_the_second_slot(tmp_path):
    alleles = np.array([[[-2, 1], [-2, 0], [-2, 0]]] * 2)
    write(tmp_path / "p.h5", [make_batch(alleles)], 3)
    panel = Panel.open(tmp_path / "p.h5")
    np.testing.assert_array_equal(panel.haplotypes(0, 2).alleles(), [[1, 0, 0]] * 2)
    np.testing.assert_allclose(panel.genotype_freq(0, 1), [[2 / 3, 0, 1 / 3]])


def test_types_and_monomorphic_sites(tmp_path):
    ref = ["A", "A", "AT", "AC", "AT", "n"]
    alt = ["g", "AT", "A", "GT", "GTT", "A"]
    alleles = np.zeros((6, 2, 2), dtype=np.int8)
    alleles[0, 0, 0] = 1
    summary = write(tmp_path / "p.h5", [make_batch(alleles, ref=ref, alt=alt)], 2)
    panel = Panel.open(tmp_path / "p.h5")
    kinds = [panel.site_types[t] for t in panel.site_type]
    assert kinds == ["SNP", "INS", "DEL", "MNP", "OTHER", "SNP"]
    assert summary.site_types == {"SNP": 2, "INS": 1, "DEL": 1, "MNP": 1, "OTHER": 1, "SV": 0}
    assert summary.num_monomorphic == 5
    assert panel.sites.alt[0] == "G"
    assert panel.sites.ref[5] == "N"


@pytest.mark.parametrize("gap", [100, 1_000, 60_000])
def test_windows_cover_all_sites_evenly(tmp_path, gap):
    position = 1_000 + gap * np.arange(5_000)
    alleles = np.zeros((5_000, 1, 2), dtype=np.int8)
    batch = make_batch(alleles, position)
    write(tmp_path / "p.h5", [batch], 1, window_cm=2.0)
    panel = Panel.open(tmp_path / "p.h5")
    windows = panel.windows
    assert windows[0, 0] == 0
    assert windows[-1, 1] == 5_000
    np.testing.assert_array_equal(windows[1:, 0], windows[:-1, 1])
    size = windows[:, 1] - windows[:, 0]
    assert size.max() <= 1_020
    assert size.min() >= 0.5 * size.max()
    spans = panel.position_cm[windows[:, 1] - 1] - panel.position_cm[windows[:, 0]]
    assert spans.max() <= 2.0 + 1e-9


def test_left_out_sites_are_counted_and_named(tmp_path, rng):
    alleles = random_alleles(rng, 8, 5)
    position = [10, 10, 10, 20, 30, 30, 40, 50]
    ref = ["A", "A", "a", "C", "G", "G", "T", "T"]
    alt = ["G", "T", "g", "<NON_REF>", "G", "A", "*", "C"]
    first = make_batch(alleles[:2], position[:2], ref=ref[:2], alt=alt[:2])
    rest = make_batch(alleles[2:], position[2:], ref=ref[2:], alt=alt[2:])
    summary = write(tmp_path / "p.h5", [first, make_batch(alleles[:0]), rest], 5)
    assert summary.dropped == {"duplicate": 1, "no_allele": 2, "ref_is_alt": 1}
    assert summary.dropped_examples["duplicate"] == ["20:10:a:g"]
    assert summary.dropped_examples["no_allele"] == ["20:20:C:<NON_REF>", "20:40:T:*"]
    panel = Panel.open(tmp_path / "p.h5")
    assert panel.sites.keys() == [(10, "A", "G"), (10, "A", "T"), (30, "G", "A"), (50, "T", "C")]
    kept = alleles[[0, 1, 5, 7]].reshape(4, 10)
    np.testing.assert_array_equal(panel.haplotypes(0, 4).alleles(), kept)


def test_no_usable_site(tmp_path, rng):
    batch = make_batch(random_alleles(rng, 2, 3), ref=["A", "A"], alt=["*", "A"])
    with pytest.raises(PanelError, match=r"no usable site.*1 no_allele, 1 ref_is_alt"):
        write(tmp_path / "p.h5", [batch], 3)
    with pytest.raises(PanelError, match="no usable site"):
        write(tmp_path / "p.h5", [], 3)
    assert os.listdir(tmp_path) == []


def test_repeated_samples(tmp_path, rng):
    batch = make_batch(random_alleles(rng, 2, 3))
    with pytest.raises(InputError, match="names s1 more than once"):
        write_panel(tmp_path / "p.h5", [batch], samples=["s1", "s2", "s1"], genetic_map=FlatMap())
    with pytest.raises(InputError, match="no samples"):
        write_panel(tmp_path / "p.h5", [], samples=[], genetic_map=FlatMap())
    with pytest.raises(ValueError, match="window_cm"):
        write(tmp_path / "p.h5", [batch], 3, window_cm=0)


def test_failure_leaves_the_old_panel(tmp_path, rng):
    path = tmp_path / "p.h5"
    write(path, [make_batch(random_alleles(rng, 9, 3))], 3)
    before = path.read_bytes()

    def broken():
        yield make_batch(random_alleles(rng, 9, 3))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(path, broken(), 3)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["p.h5"]
    with pytest.raises(InputError, match=r"cannot write .*none.*No such file"):
        write(tmp_path / "none" / "p.h5", [make_batch(random_alleles(rng, 9, 3))], 3)


def test_full_disk_is_one_line(tmp_path):
    """A process that may write 100 kB only fails with InputError and leaves nothing."""
    code = """
        import resource, signal
        import numpy as np
        from panel_fixtures import *
        from ragimpute.preparation.panel_writer import write_panel
        from ragimpute.errors import InputError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        alleles = random_alleles(np.random.default_rng(1), 20_000, 100)
        try:
            write_panel("p.h5", [make_batch(alleles)], samples=names(100), genetic_map=FlatMap())
        except InputError as error:
            print("refused:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused: cannot write p.h5"), done.stdout
    assert os.listdir(tmp_path) == []


def test_memory_does_not_grow_with_sites(tmp_path, rng):
    alleles = random_alleles(rng, 500, 500)

    def peak(num_batches):
        batches = (make_batch(alleles, first_bp=1 + 5_000 * i) for i in range(num_batches))
        tracemalloc.start()
        write(tmp_path / "p.h5", batches, 500)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few = peak(40)  # enough to fill every column's buffer
    assert peak(160) < 1.2 * few  # 80 MB of alleles against 20 MB
