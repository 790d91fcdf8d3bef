"""panel.h5: what was written comes back; what is damaged is refused."""

from __future__ import annotations

import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names, random_alleles

from ragimpute.errors import InputError, PanelError
from ragimpute.panel.format import (
    DATASETS,
    FORMAT_VERSION,
    content_checksum,
    digest_array,
    new_digest,
)
from ragimpute.panel.packing import carrier_limit
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.sites import Region


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture
def written(tmp_path, rng):
    """A panel of 300 sites and 40 samples, and its alleles (M, H)."""
    alleles = random_alleles(rng, 300, 40)
    batches = [make_batch(alleles[i : i + 70], first_bp=1_000 + 10 * i) for i in range(0, 300, 70)]
    path = tmp_path / "p.h5"
    summary = write_panel(
        path, batches, samples=names(40), genetic_map=FlatMap(), source="/a/p.vcf"
    )
    return path, alleles.reshape(300, 80), summary


def test_round_trip(written):
    path, alleles, summary = written
    with Panel.open(path) as panel:
        assert panel.num_sites == len(panel.sites) == 300
        assert panel.num_haplotypes == 80
        assert panel.samples == names(40)
        assert panel.contig == "20"
        assert panel.contig_length is None
        assert panel.checksum == summary.checksum
        assert panel.provenance["source"] == "p.vcf"
        np.testing.assert_array_equal(panel.haplotypes(0, 300).alleles(), alleles)
        np.testing.assert_array_equal(panel.alt_count, alleles.sum(axis=1))
        np.testing.assert_allclose(panel.af, alleles.mean(axis=1), rtol=1e-6)
        np.testing.assert_array_equal(panel.haplotype_sample, np.arange(80) // 2)
        np.testing.assert_array_equal(panel.sites.position_bp, 1_000 + 10 * np.arange(300))
        np.testing.assert_allclose(panel.position_cm, panel.sites.position_bp * 1e-6)
        assert list(panel.sites.id[:2]) == ["rs1000", "rs1010"]
        assert panel.sites.ref[0] == "A"
        assert panel.sites.alt[0] == "G"
        pair = alleles.reshape(300, 40, 2).sum(axis=2)
        expected = np.stack([(pair == g).mean(axis=1) for g in range(3)], axis=1)
        np.testing.assert_allclose(panel.genotype_freq(0, 300), expected, rtol=1e-6)
        np.testing.assert_allclose(panel.af_population(0, 300), panel.af[None], rtol=1e-6)
        panel.verify()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    num_sites=st.integers(1, 60),
    num_samples=st.sampled_from([1, 2, 31, 32, 33, 100, 300]),
    batch_size=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_region_reads_are_slices_of_the_whole(
    tmp_path, num_sites, num_samples, batch_size, seed, data
):
    rng = np.random.default_rng(seed)
    alleles = random_alleles(rng, num_sites, num_samples)
    batches = (
        make_batch(alleles[i : i + batch_size], first_bp=1_000 + 10 * i)
        for i in range(0, num_sites, batch_size)
    )
    path = tmp_path / "p.h5"
    write_panel(path, batches, samples=names(num_samples), genetic_map=FlatMap())
    start = data.draw(st.integers(0, num_sites))
    stop = data.draw(st.integers(start, num_sites))
    flat = alleles.reshape(num_sites, -1)
    with Panel.open(path) as panel:
        block = panel.haplotypes(start, stop)
        np.testing.assert_array_equal(block.alleles(), flat[start:stop])
        index = np.array(data.draw(st.lists(st.integers(0, max(0, stop - start - 1)), max_size=9)))
        if stop > start:
            index = index.astype(int)
            np.testing.assert_array_equal(block.alleles(index), flat[start:stop][index])
        minor = np.where(block.alt_is_minor[:, None], flat[start:stop], 1 - flat[start:stop])
        for i in range(stop - start):  # the documented layout, read the slow way
            carriers = np.flatnonzero(minor[i])
            listed = block.carriers[block.offsets[i] : block.offsets[i + 1]]
            if block.row[i] < 0:
                np.testing.assert_array_equal(listed, carriers)
                assert len(carriers) <= carrier_limit(2 * num_samples)
            else:
                assert len(listed) == 0
                words = block.bits[block.row[i]].tolist()
                ones = [h for h in range(64 * len(words)) if words[h // 64] >> (h % 64) & 1]
                assert ones == carriers.tolist()
        assert block.carriers.dtype == block.row.dtype == np.int32
        assert block.bits.dtype == np.uint64
        assert block.offsets.dtype == np.int64
        np.testing.assert_array_equal(
            panel.genotype_freq(start, stop), panel.genotype_freq(0, num_sites)[start:stop]
        )


def test_checksum_depends_on_content_only(tmp_path, rng):
    alleles = random_alleles(rng, 50, 20)
    sums = []
    for name, size, source in (("a.h5", 50, "x"), ("b.h5", 7, "y")):
        parts = [
            make_batch(alleles[i : i + size], first_bp=1_000 + 10 * i) for i in range(0, 50, size)
        ]
        done = write_panel(
            tmp_path / name, parts, samples=names(20), genetic_map=FlatMap(), source=source
        )
        sums.append(done.checksum)
    alleles[25, 3, 1] ^= 1
    other = write_panel(
        tmp_path / "c.h5", [make_batch(alleles)], samples=names(20), genetic_map=FlatMap()
    )
    assert sums[0] == sums[1] != other.checksum


def test_boolean_and_slice_index(written):
    path, alleles, _ = written
    block = Panel.open(path).haplotypes(10, 60)
    pick = np.zeros(50, dtype=bool)
    pick[[3, 40]] = True
    np.testing.assert_array_equal(block.alleles(pick), alleles[10:60][pick])
    np.testing.assert_array_equal(block.alleles(slice(5, 9)), alleles[15:19])
    assert block.alleles(slice(0, 0)).shape == (0, 80)


def test_site_range(written):
    path, _, _ = written
    panel = Panel.open(path)
    assert panel.site_range(None) == (0, 300)
    assert panel.site_range(Region.parse("20:1000-1010")) == (0, 2)
    assert panel.site_range(Region.parse("chr20:1011")) == (2, 2)
    with pytest.raises(InputError, match=r"contig 21.*contig 20"):
        panel.site_range(Region.parse("21:1-5"))
    with pytest.raises(ValueError, match=r"\[5, 301\)"):
        panel.haplotypes(5, 301)


def test_pickle_and_reopen(written):
    path, alleles, _ = written
    panel = pickle.loads(pickle.dumps(Panel.open(path)))
    np.testing.assert_array_equal(panel.haplotypes(0, 9).alleles(), alleles[:9])


def test_forked_processes_and_threads_read_the_same(written):
    path, alleles, _ = written
    panel = Panel.open(path)

    def reads_well(seed):
        for start in np.random.default_rng(seed).integers(0, 250, size=40).tolist():
            found = panel.haplotypes(start, start + 50).alleles()
            np.testing.assert_array_equal(found, alleles[start : start + 50])
        return True

    children = []
    for seed in range(3):
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if reads_well(seed) else 1)
            finally:
                os._exit(1)
        children.append(child)
    assert reads_well(9)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(reads_well, range(3)))


def test_changed_since_opened(written, rng):
    path, _, _ = written
    panel = Panel.open(path)
    panel.close()
    batch = make_batch(random_alleles(rng, 9, 40))
    write_panel(path, [batch], samples=names(40), genetic_map=FlatMap())
    with pytest.raises(PanelError, match="changed since it was opened"):
        panel.haplotypes(0, 5)


def test_not_a_panel(tmp_path):
    missing = tmp_path / "none.h5"
    with pytest.raises(PanelError, match="does not exist"):
        Panel.open(missing)
    with pytest.raises(PanelError, match="is a folder"):
        Panel.open(tmp_path)
    for content, message in (
        (b"", "not HDF5"),
        (b"##fileformat=VCFv4.2\n", "looks like a VCF"),
        (b"\x1f\x8b\x08\x04rest", "looks like a VCF"),
        (b"\x89HDF\r\n\x1a\n", "damaged"),
    ):
        missing.write_bytes(content)
        with pytest.raises(PanelError, match=message):
            Panel.open(missing)
    with h5py.File(missing, "w") as file:
        file["calldata/GT"] = np.zeros((2, 2, 2))
    with pytest.raises(PanelError, match="HDF5 file, but not a panel"):
        Panel.open(missing)


@pytest.mark.parametrize(("change", "message"), [(1, "newer"), (-1, "older")])
def test_other_format_version(written, change, message):
    path, _, _ = written
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = FORMAT_VERSION + change
    with pytest.raises(PanelError, match=f"format version {FORMAT_VERSION + change}") as caught:
        Panel.open(path)
    assert message in caught.value.hint


@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.1])
def test_truncated(written, share):
    path, _, _ = written
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(PanelError, match=r"damaged.*truncated"):
        Panel.open(path)


@pytest.mark.parametrize(
    "name", ["sites/position_cm", "sites/alt_count", "windows", "haplotypes/sample"]
)
def test_changed_site_table(written, name):
    path, _, _ = written
    with h5py.File(path, "r+") as file:
        file[name][0] += 1
    with pytest.raises(PanelError, match=f"{name} does not match"):
        Panel.open(path)


def test_changed_header(written):
    path, _, _ = written
    with h5py.File(path, "r+") as file:
        file.attrs["contig"] = np.bytes_("21")
    with pytest.raises(PanelError, match="header does not match"):
        Panel.open(path)
    with h5py.File(path, "r+") as file:
        del file["samples/population"]
    with pytest.raises(PanelError, match="damaged"):
        Panel.open(path)


def test_verify_finds_changed_haplotypes(written):
    path, _, _ = written
    with h5py.File(path, "r+") as file:
        file["haplotypes/patterns"][1] ^= np.uint64(1)
    panel = Panel.open(path)
    with pytest.raises(PanelError, match="haplotypes/patterns does not match"):
        panel.verify()


def test_flipped_bytes_never_pass_unseen(written):
    """Any flipped byte is refused on opening, on reading, or changes nothing."""
    path, alleles, _ = written
    content = bytearray(path.read_bytes())
    refused = 0
    for at in range(0, len(content), 97):
        damaged = content.copy()
        damaged[at] ^= 0xFF
        copy = path.with_name("damaged.h5")
        Path(copy).write_bytes(damaged)
        try:
            with Panel.open(copy) as panel:
                found = panel.haplotypes(0, panel.num_sites).alleles()
                panel.verify()
        except PanelError:
            refused += 1
        else:
            np.testing.assert_array_equal(found, alleles)
    assert refused > 50


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("sites/position_bp", lambda x: x[:, None], "of 2 dimensions"),
        ("windows", lambda x: x.reshape(-1), "of 1 dimensions"),
        ("windows", lambda x: x[:, :1], "windows do not follow"),
        ("windows", lambda x: x[:0], "windows do not follow"),
        ("windows", lambda x: x + 1, "windows do not follow"),
        ("windows", lambda x: np.where(x == x.max(), 2**63 - 1, x), "windows do not follow"),
        ("windows", lambda x: np.repeat(x, 2, axis=0), "windows do not follow"),
        ("windows", lambda _: np.array([[0, 100], [150, 300]]), "windows do not follow"),
        ("windows", lambda x: x.astype("f8"), "windows do not follow"),
        ("sites/position_bp", lambda x: x[::-1], "not sorted"),
        ("sites/position_cm", lambda x: x[::-1], "not sorted"),
        ("sites/position_cm", lambda x: np.where(x == x.max(), np.inf, x), "not sorted"),
        ("sites/position_cm", lambda x: np.where(x == x.max(), np.nan, x), "not sorted"),
        ("samples/population", lambda x: x + 100, "amiss"),
        ("samples/population", lambda x: x[:-1], "amiss"),
        ("haplotypes/sample", lambda x: x - 1, "amiss"),
        ("sites/type", lambda x: x + 99, "amiss"),
        ("sites/type", lambda x: x.astype("f4"), "amiss"),
        ("haplotypes/pattern_index", lambda x: x.astype("f4"), "do not fit"),
        ("haplotypes/carriers", lambda x: x.astype("f8"), "do not fit"),
        ("haplotypes/carriers", lambda x: x[:, None], "do not fit"),
        ("haplotypes/patterns", lambda x: x[:, None], "do not fit"),
        ("haplotypes/pattern_count", lambda x: x[:, None], "do not fit"),
        ("frequency/genotype_count", lambda x: x[:, :2], "do not fit"),
        ("frequency/population_alt_count", lambda x: x[1:], "do not fit"),
        ("haplotypes/pattern_index", lambda x: x + 2**15, "is damaged"),
    ],
)
def test_values_that_lie_though_their_digests_fit(written, name, change, problem):
    path, _, _ = written
    with h5py.File(path, "r+") as file:
        values = change(file[name][:])
        attributes = dict(file[name].attrs)
        del file[name]
        file[name] = values
        digests = {}
        for each in DATASETS:
            digest = new_digest()
            digest_array(digest, file[each][...])
            digests[each] = digest.hexdigest()
            file[each].attrs["digest"] = np.bytes_(digests[each])
        for key in attributes.keys() - {"digest"}:
            file[name].attrs[key] = attributes[key]
        contig = file.attrs["contig"].decode()
        file.attrs["checksum"] = np.bytes_(content_checksum(contig, digests))
    with pytest.raises(PanelError, match=problem), Panel.open(path) as panel:
        panel.haplotypes(0, panel.num_sites)


def test_what_is_no_path_is_named():
    with pytest.raises(TypeError, match=r"Panel\.open\(\) argument 'path': .*, found int: 5"):
        Panel.open(5)


def test_the_name_of_the_map_is_kept_and_may_be_absent(panel_h5, tmp_path):
    with Panel.open(panel_h5) as panel:
        assert panel.provenance["genetic_map"] == "chr20.b37.gmap.gz"
        checksum = panel.checksum
    path = tmp_path / "old.h5"
    shutil.copy(panel_h5, path)
    with h5py.File(path, "r+") as file:
        del file.attrs["genetic_map"]
    with Panel.open(path) as panel:  # as made before the name was kept
        assert panel.provenance["genetic_map"] == ""
        assert panel.checksum == checksum
