"""Time VcfWriter on an imputed chromosome's worth of sites, and cyvcf2's Writer on a part.

Run: python benchmarks/output_speed.py [--sites 217000] [--samples 200] [--threads 1]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ragimpute.io.imputed import ImputedBlock
from ragimpute.io.vcf.header import Heading
from ragimpute.io.vcf.write.writer import VcfWriter
from ragimpute.sites import Sites

BLOCK_SITES = 4_000


def make_blocks(num_sites: int, num_samples: int) -> Iterator[ImputedBlock]:
    """Sites with frequencies like those of a sequenced panel, a sixtieth typed, some in doubt."""
    rng = np.random.default_rng(1)
    for start in range(0, num_sites, BLOCK_SITES):
        m = min(BLOCK_SITES, num_sites - start)
        frequency = rng.beta(0.15, 1.2, size=(m, 1, 1))
        carrier = rng.random((m, num_samples, 2)) < frequency
        doubt = rng.beta(0.15, 8, size=(m, num_samples, 2)) * np.minimum(1, 20 * frequency)
        prob = np.where(carrier, 1 - doubt, doubt).astype(np.float32)
        typed = rng.random(m) < 1 / 60
        called = np.full(prob.shape, -1, dtype=np.int8)
        called[typed] = carrier[typed]
        af = prob.mean(axis=(1, 2))
        info = {"AF": af, "MAF": np.minimum(af, 1 - af), "DR2": np.ones(m, dtype=np.float32)}
        text = [np.full(m, value, dtype=object) for value in ("A", "G", ".")]
        position = (10_000 + 280 * np.arange(start, start + m)).astype(np.int32)
        yield ImputedBlock(Sites("20", position, *text), prob, called, info, typed)


def time_writer(
    blocks: list[ImputedBlock],
    path: Path,
    threads: int,
    fields: tuple[str, ...] = ("GT", "DS", "GP"),
) -> float:
    """Seconds that VcfWriter takes."""
    samples = [f"s{i}" for i in range(blocks[0].called.shape[1])]
    started = time.perf_counter()
    with VcfWriter(
        path, Heading(samples, [("20", None)]), threads=threads, fields=fields
    ) as writer:
        for block in blocks:
            writer.write(block)
    return time.perf_counter() - started


def time_cyvcf2(block: ImputedBlock, path: Path, template: Path) -> float:
    """Seconds that cyvcf2's Writer takes for GT, DS and GP of one block, without INFO."""
    import cyvcf2

    source = cyvcf2.VCF(str(template))
    for name, number in (("DS", "A"), ("GP", "G")):
        field = {"ID": name, "Number": number, "Type": "Float", "Description": name}
        source.add_format_to_header(field)
    writer = cyvcf2.Writer(str(path), source, mode="wz")
    started = time.perf_counter()
    p = block.allele_prob
    gt = (p > 0.5).astype(int).tolist()
    ds = np.round(p.sum(axis=2), 3)
    one, two = p[:, :, 0], p[:, :, 1]
    g0, g2 = (1 - one) * (1 - two), one * two
    gp = np.round(np.stack([g0, 1 - g0 - g2, g2], axis=2), 3)
    for i, variant in enumerate(source):
        variant.genotypes = [[a, b, True] for a, b in gt[i]]
        variant.set_format("DS", ds[i])
        variant.set_format("GP", np.ascontiguousarray(gp[i]))
        writer.write_record(variant)
    writer.close()
    return time.perf_counter() - started


def main() -> None:
    """Print a line for each writer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=217_000)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kind", default="vcf.gz", choices=("vcf", "vcf.gz", "bcf"))
    options = parser.parse_args()
    ours = written = num_bytes = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"out.{options.kind}"
        blocks = list(make_blocks(min(options.sites, 5 * BLOCK_SITES), options.samples))
        time_writer(blocks[:1], path, options.threads)  # compiles the kernel
        samples = [f"s{i}" for i in range(options.samples)]
        with VcfWriter(path, Heading(samples, [("20", None)]), threads=options.threads) as writer:
            while written < options.sites:
                block = blocks[int(written // BLOCK_SITES) % len(blocks)]
                shift = int(10_000 + 280 * written) - int(block.sites.position_bp[0])
                sites = block.sites
                moved = Sites(
                    "20", sites.position_bp + np.int32(shift), sites.ref, sites.alt, sites.id
                )
                moved_block = ImputedBlock(
                    moved, block.allele_prob, block.called, block.info, block.typed
                )
                started = time.perf_counter()
                writer.write(moved_block)
                ours += time.perf_counter() - started
                written += len(sites)
            started = time.perf_counter()
            writer.close()
            ours += time.perf_counter() - started
        num_bytes = path.stat().st_size
        print(
            f"VcfWriter {options.kind}: {written:,.0f} sites x {options.samples} samples, "
            f"{options.threads} threads: {ours:.2f} s, {num_bytes / 1e6:.1f} MB"
        )
        template = Path(folder) / "template.vcf"
        time_writer(blocks[:1], template, 1, ("GT",))
        part = time_cyvcf2(blocks[0], Path(folder) / "peer.vcf.gz", template)
        whole = part * written / len(blocks[0].sites)
        print(
            f"cyvcf2 Writer vcf.gz: {whole:.1f} s (from {len(blocks[0].sites):,} sites), "
            f"{whole / ours:.1f} times as long"
        )


if __name__ == "__main__":
    main()
