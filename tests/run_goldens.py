"""Digests of what the commands write, to see that a change of the code leaves every byte as it was.

Run: python tests/run_goldens.py            compare with tests/goldens.json
     python tests/run_goldens.py --write    renew it, in the commit that says why the output changes

Inputs are the packaged example, simulated panels and a model that is trained on the spot. Digests
are of the decompressed output less the version in its header. They are kept by the processor's
level and by the instructions that torch uses, since sums of INFO fields and whatever torch
computes have other last digits elsewhere; a machine of which none are kept is told to write them
from the state before the change.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
GOLDENS = Path(__file__).with_name("goldens.json")

# What is written and how, one after another in one folder; {name} is a file of the example.
RUNS = {
    "example.h5": "prepare {panel.bcf} --map {chr20.b37.gmap.gz} -o example.h5",
    "large.h5": "prepare large/panel.bcf --map large/simulated.map -o large.h5",
    "x.h5": "prepare x.panel.vcf --cm-per-mb 1 -o x.h5",
    "whole.vcf.gz": "impute {target.vcf.gz} --panel example.h5 --format GT,DS,GP,HDS,AP"
    " -o whole.vcf.gz",
    "whole.bcf": "impute {target.vcf.gz} --panel example.h5 -t 2 -o whole.bcf",
    "searched.vcf.gz": "impute large/target.array.vcf.gz --panel large.h5 -o searched.vcf.gz",
    "unphased.vcf.gz": "impute unphased.vcf --panel example.h5 -t 2 -o unphased.vcf.gz",
    "x.vcf.gz": "impute x.target.vcf --panel x.h5 --format GT,DS,GP,HDS -o x.vcf.gz",
    "states.vcf.gz": "impute {target.vcf.gz} --panel example.h5 --model states -o states.vcf.gz",
    "token.vcf.gz": "impute {target.vcf.gz} --panel example.h5 --model token -o token.vcf.gz",
    "phased.vcf.gz": "phase unphased.vcf --panel example.h5 -o phased.vcf.gz",
    "merged.vcf.gz": "merge one.vcf.gz two.vcf.gz -o merged.vcf.gz",
}
# What must be there before one of them.
BEFORE = {
    "states.vcf.gz": [
        "train example.h5 --config default --set model.copying.num_set_tokens=16"
        " --set train.epochs=1 --set data.num_arrays=1 --set data.short_arrays=0"
        " --set data.max_haplotypes=40 --device cpu -o states",
    ],
    "token.vcf.gz": [
        "train example.h5 --config v10-small --set train.epochs=1 --set data.windows_per_epoch=16"
        " --device cpu -o token",
    ],
    "merged.vcf.gz": [
        "impute {target.vcf.gz} --panel example.h5 --samples-file one.txt -o one.vcf.gz",
        "impute {target.vcf.gz} --panel example.h5 --samples-file two.txt -o two.vcf.gz",
    ],
}


def machine_key() -> str:
    """What digests depend on beside the code."""
    import torch

    from ragimpute.kernels.processor import this_processor

    return f"{this_processor().level}, torch {torch.backends.cpu.get_cpu_capability()}"


def write_inputs(folder: Path) -> None:
    """Write what the example lacks: a large panel, chrX, an unphased target, two batches."""
    sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]
    simulate = [
        sys.executable, str(ROOT / "benchmarks" / "simulate.py"), "--haplotypes", "6200",
        "--targets", "6", "--mb", "0.4", "--typed-per-mb", "400", "--seed", "3",
        "-o", str(folder / "large"),
    ]  # fmt: skip
    subprocess.run(simulate, check=True, stdout=subprocess.DEVNULL)
    with gzip.open(ROOT / "ragimpute" / "example" / "target.vcf.gz", "rt") as file:
        lines = file.read().splitlines()
    samples = next(line for line in lines if line.startswith("#CHROM")).split("\t")[9:]
    (folder / "one.txt").write_text("".join(f"{name}\n" for name in samples[:20]))
    (folder / "two.txt").write_text("".join(f"{name}\n" for name in samples[20:]))
    unphased = [line if line[0] == "#" else line.replace("1|0", "0/1").replace("0|1", "0/1")
                for line in lines]  # fmt: skip
    (folder / "unphased.vcf").write_text("\n".join(unphased) + "\n")
    rng = np.random.default_rng(1)
    founders = rng.random((8, 300)) < rng.beta(0.4, 1.0, 300)
    for name, num, keep in (("panel", 40, 1), ("target", 6, 4)):
        write_x(folder / f"x.{name}.vcf", founders, num, keep, rng)


def write_x(
    path: Path, founders: np.ndarray, num: int, keep: int, rng: np.random.Generator
) -> None:
    """A VCF of chrX from PAR1 on: mosaics of founders, every second sample a haploid male."""
    position = 2_600_000 + 1_000 * np.arange(founders.shape[1])
    copied = np.cumsum(rng.random((2 * num, len(position))) < 0.02, axis=1) + rng.integers(
        0, 8, (2 * num, 1)
    )
    alleles = np.take_along_axis(founders, copied % 8, axis=0).astype(int)
    names = "\t".join(f"{path.stem}{i}" for i in range(num))
    rows = [
        "##fileformat=VCFv4.2\n##contig=<ID=X,length=155270560>\n"
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
        f"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{names}"
    ]
    for j in range(0, len(position), keep):
        haploid = position[j] > 2_699_520
        cells = [
            str(alleles[2 * i, j])
            if haploid and i % 2
            else f"{alleles[2 * i, j]}|{alleles[2 * i + 1, j]}"
            for i in range(num)
        ]
        rows.append(f"X\t{position[j]}\t.\tA\tG\t.\t.\t.\tGT\t" + "\t".join(cells))
    path.write_text("\n".join(rows) + "\n")


def run(words: str, folder: Path) -> None:
    """Run one command in the folder."""
    files = {path.name: str(path) for path in (ROOT / "ragimpute" / "example").iterdir()}
    words = re.sub(r"\{(.+?)\}", lambda found: files[found[1]], words)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ragimpute", *shlex.split(words), "--quiet"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{words}\n{done.stderr}")


def digest_of(path: Path) -> str:
    """Digest of an output's content: decompressed, less versions and paths in its header."""
    if path.suffix == ".h5":
        from ragimpute.panel.reader import Panel

        with Panel.open(path) as panel:
            return panel.checksum
    data = gzip.decompress(path.read_bytes())
    data = re.sub(rb"##ragimpute(_command|_version|_panel)?=[^\n]*\n", b"", data)
    if path.suffix == ".bcf":  # the header's length counts what was left out
        data = data[:5] + data[9:]
    return hashlib.sha256(data).hexdigest()[:32]


def make_digests() -> dict[str, str]:
    """Run everything; the digest of each output."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        for out, words in RUNS.items():
            for before in BEFORE.get(out, []):
                run(before, folder)
            run(words, folder)
            found[out] = digest_of(folder / out)
            print(f"{out:18} {found[out]}", flush=True)
    return found


def main() -> None:
    """Entry point: 0 where every digest is the same, 1 where one is not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="renew the digests of this machine")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    known = json.loads(GOLDENS.read_text()) if GOLDENS.is_file() else {}
    key = machine_key()
    if not args.write and key not in known:
        sys.exit(
            f"no digests are kept for {key}: write them with --write in the state before the change"
        )
    found = make_digests()
    if args.write:
        known[key] = found
        GOLDENS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        return
    changed = [out for out, digest in found.items() if known[key].get(out) != digest]
    if changed:
        sys.exit(f"changed: {', '.join(changed)}")
    print(f"all {len(found)} outputs are as they were ({key})")


if __name__ == "__main__":
    main()
