"""Records with several ALTs: joined from split sites, as text and as BCF."""

from __future__ import annotations

import numpy as np
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imputed_blocks import make_block
from vcf_fixtures import rows_of, view

from ragimpute.errors import InputError
from ragimpute.imputation.exclusion import exclude_alleles
from ragimpute.io.imputed import ImputedBlock
from ragimpute.io.vcf.header import Heading
from ragimpute.io.vcf.read.dosages import read_dosages
from ragimpute.io.vcf.write.writer import VcfWriter
from ragimpute.jobs.merge import merge
from ragimpute.panel.loci import Loci

FIELDS = ("GT", "DS", "GP", "HDS", "AP")


def write(path, block, *, joined, fields=FIELDS, threads=1):
    """A file of a block, joined or split."""
    shown = [f"s{i}" for i in range(block.called.shape[1])]
    heading = Heading(shown, [("20", 63_025_520)], joined=joined)
    if not joined:
        block = ImputedBlock(**{**vars(block), "locus": None})
    with VcfWriter(path, heading, fields=fields, threads=threads) as writer:
        writer.write(block)
    return path


def random_loci(seed, num_groups, num_samples, *, most=4):
    """Sites alone and in groups, some of which lie between those of a group."""
    rng = np.random.default_rng(seed)
    position, ref, alt, locus = [], [], [], []
    for group in range(num_groups):
        size = int(rng.integers(1, most + 1))
        alts = [f"{base}{'T' * (group % 3)}" for base in "CGTAN"[:size]]
        rows = [("A", text, group if size > 1 else -1) for text in alts]
        if rng.random() < 0.4:
            rows.insert(int(rng.integers(0, size + 1)), ("AT", "A", -1))
        for one_ref, one_alt, number in rows:
            position.append(100 + 10 * group)
            ref.append(one_ref)
            alt.append(one_alt)
            locus.append(number)
    locus = np.array(locus)
    shape = (len(locus), num_samples, 2)
    prob = rng.beta(0.2, 0.6, shape).astype(np.float32)
    prob[rng.random(shape) < 0.4] = 0
    called = np.full(shape, -1, np.int8)
    loci = Loci.of([np.flatnonzero(locus == i).tolist() for i in set(locus[locus >= 0].tolist())])
    for rows in loci:
        if rng.random() < 0.4:
            which = rng.integers(-1, len(rows), shape[1:])
            called[rows] = which == np.arange(len(rows))[:, None, None]
            prob[rows] = called[rows]
    exclude_alleles(prob.reshape(len(locus), -1), called.reshape(len(locus), -1), loci)
    haploid = rng.random(num_samples) < 0.3
    prob[:, haploid, 1] = np.nan
    called[:, haploid, 1] = -2
    info = {
        "AF": np.nanmean(prob, axis=(1, 2)),
        "DR2": np.where(rng.random(len(locus)) < 0.2, np.nan, rng.random(len(locus))),
        "AN": np.full(len(locus), 7.0),
    }
    block = make_block(prob, called=called, position=position, ref=ref, alt=alt, info=info)
    return ImputedBlock(**{**vars(block), "locus": locus})


def split_genotype(pair, own):
    return tuple(None if allele is None else int(allele == own) for allele in pair)


def check(joined_path, split_path):
    """Read by pysam, the joined file says what the split one does; returns how many are joined."""
    split = {(r.pos, r.ref, r.alts[0]): r for r in pysam.VariantFile(str(split_path))}
    num_joined = 0
    for record in pysam.VariantFile(str(joined_path)):
        num_joined += len(record.alts) > 1
        for i, alt in enumerate(record.alts):
            one = split.pop((record.pos, record.ref, alt))
            for name in ("AF", "DR2"):
                expected = one.info.get(name, (None,))[0]
                found = record.info.get(name, (None,) * len(record.alts))[i]
                assert found == expected
            assert record.info["AN"] == one.info["AN"]
            assert set(one.id.split(";") if one.id else []) <= set((record.id or "").split(";"))
            for sample in record.samples:
                found, expected = record.samples[sample], one.samples[sample]
                assert found.phased == expected.phased
                assert split_genotype(found["GT"], i + 1) == expected["GT"]
                for name in ("DS", "AP1", "AP2"):
                    values = found[name] if found[name] != (None,) else [None] * len(record.alts)
                    assert values[i] == expected[name][0]
                ploidy = len(expected["GT"])
                assert found["HDS"][ploidy * i : ploidy * (i + 1)] == expected["HDS"]
        for sample in record.samples.values():
            num, ploidy = len(record.alts) + 1, len(sample["GT"])
            pairs = [(j, i) for i in range(num) for j in range(i + 1)]
            assert len(sample["GP"]) == (num if ploidy == 1 else len(pairs))
            assert sum(sample["GP"]) == pytest.approx(1, abs=1e-5)
            hds = np.array(sample["HDS"]).reshape(num - 1, ploidy)
            of = np.concatenate([1 - hds.sum(axis=0, keepdims=True), hds])
            for place, (i, j) in enumerate(pairs if ploidy == 2 else [(i, i) for i in range(num)]):
                prob = of[i, 0] if ploidy == 1 else of[i, 0] * of[j, 1]
                prob += of[j, 0] * of[i, 1] if i != j else 0
                assert sample["GP"][place] == pytest.approx(prob, abs=4e-3)
            assert sum(sample["DS"]) <= ploidy + 1e-6
    assert not split
    return num_joined


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), suffix=st.sampled_from([".vcf", ".vcf.gz", ".bcf"]))
def test_joined_records_say_what_the_split_ones_say(tmp_path_factory, seed, suffix):
    folder = tmp_path_factory.mktemp("joined")
    block = random_loci(seed, 6, 4)
    joined = write(folder / f"j{suffix}", block, joined=True)
    split = write(folder / f"s{suffix}", block, joined=False)
    assert check(joined, split) == len(set(block.locus[block.locus >= 0].tolist()))


def test_text_and_bcf_and_any_threads_are_the_same(tmp_path):
    block = random_loci(4, 40, 5)
    texts = {
        view(write(tmp_path / f"{threads}{suffix}", block, joined=True, threads=threads))
        for threads in (1, 3)
        for suffix in (".vcf", ".vcf.gz", ".bcf")
    }
    assert len(texts) == 1
    rows = rows_of(texts.pop())
    assert [int(row[1]) for row in rows] == sorted(int(row[1]) for row in rows)


def test_many_alts(tmp_path):
    """Vectors of 15 numbers or more, and of 128 or more, are coded differently in BCF."""
    num = 20
    prob = np.full((num, 2, 2), 0.01, np.float32)
    alts = ["A" * (i + 2) for i in range(num)]
    block = make_block(prob, position=[7] * num, ref=["A"] * num, alt=alts)
    block = ImputedBlock(**{**vars(block), "locus": np.zeros(num, np.int64)})
    fields = ("GT", "DS", "GP", "HDS", "AP")
    paths = [write(tmp_path / f"x{s}", block, joined=True, fields=fields) for s in (".vcf", ".bcf")]
    assert view(paths[0]) == view(paths[1])
    (record,) = pysam.VariantFile(str(paths[1]))
    assert len(record.samples["s0"]["GP"]) == (num + 1) * (num + 2) // 2
    assert len(record.info["AF"]) == num


def test_dosages_are_read_and_merge_refuses(tmp_path):
    block = random_loci(9, 12, 3)
    joined = write(tmp_path / "j.vcf.gz", block, joined=True)
    split = write(tmp_path / "s.vcf.gz", block, joined=False)
    found, expected = read_dosages(joined), read_dosages(split)
    number = {key: i for i, key in enumerate(found.sites.keys())}
    order = [number[key] for key in expected.sites.keys()]
    np.testing.assert_array_equal(found.dosage[order], expected.dosage)
    np.testing.assert_array_equal(found.ploidy[order], expected.ploidy)
    np.testing.assert_array_equal(found.dr2[order], expected.dr2)
    other = tmp_path / "o.vcf.gz"
    text = view(joined).replace("\ts0\ts1\ts2\n", "\tt0\tt1\tt2\n")
    (tmp_path / "o.vcf").write_text(text)
    pysam.tabix_compress(str(tmp_path / "o.vcf"), str(other))
    with pytest.raises(InputError, match="ALTs, expected one") as error:
        merge([joined, other], tmp_path / "m.vcf.gz")
    assert "--join-multiallelics" in error.value.hint
    assert not (tmp_path / "m.vcf.gz").exists()
