"""Made-up imputed genotypes, and their writing."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ragimpute.io.imputed import ImputedBlock
from ragimpute.io.vcf.header import INFOS, Heading
from ragimpute.io.vcf.write.writer import VcfWriter
from ragimpute.sites import Sites

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
    said = {name: options.pop(name) for name in ("command", "header_lines") if name in options}
    with VcfWriter(path, Heading(samples, contigs, **said), **options) as writer:
        for block in blocks:
            writer.write(block)
    return path


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
