"""Kill imputation runs at random moments, go on with each, and compare the bytes.

    python benchmarks/kills.py --kills 50

Runs on the packaged example, in small windows, with plain Li-Stephens copying. Each run is killed
by SIGKILL at a moment drawn uniformly over the time that an unbroken run takes, and then gone on
with (killed once more, in every third run); its bytes, index included, must be those that an
unbroken run without --resume writes, and nothing else may be left. Exits with 1 if any of it is
not so.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ragimpute import example


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="runs that are killed")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--chunk-cm", default="0.01", help="windows, cM")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragimpute-kills-") as name:
        return measure(Path(name), options.kills, options.seed, options.chunk_cm)


def measure(folder: Path, num_kills: int, seed: int, chunk_cm: str) -> int:
    """Do it all in a folder; returns the exit code."""
    program = [sys.executable, "-m", "ragimpute"]
    panel, model = folder / "panel.h5", folder / "copying"
    gmap = example.path("chr20.b37.gmap.gz")
    subprocess.run(
        [*program, "prepare", example.path("panel.bcf"), "--map", gmap, "-o", panel, "-q"],
        check=True,
    )
    model.mkdir()
    (model / "config.yaml").write_text("extends: default\n", encoding="utf-8")
    command = [
        *program, "impute", example.path("target.vcf.gz"), "-p", panel, "-m", model, "-q",
        "--chunk-cm", chunk_cm, "--buffer-cm", "0.1",
    ]  # fmt: skip
    plain, kept = folder / "plain", folder / "kept"
    plain.mkdir()
    began = time.monotonic()
    subprocess.run([*command, "-o", plain / "out.vcf.gz"], check=True)
    whole_seconds = time.monotonic() - began
    expected = contents(plain)

    moments = random.Random(seed)
    num_killed = num_wrong = 0
    windows: list[int] = []
    num_windows = 0
    for number in range(num_kills):
        kept.mkdir(exist_ok=True)
        resumed = [*command, "-o", kept / "out.vcf.gz", "--resume"]
        for _ in range(2 if number % 3 == 0 else 1):
            process = subprocess.Popen(resumed)
            try:
                process.wait(moments.uniform(0, whole_seconds))
            except subprocess.TimeoutExpired:
                process.kill()
            if process.wait() == -signal.SIGKILL:
                num_killed += 1
                done, planned = progress(kept / ".out.vcf.gz.resume" / "run.json")
                windows.append(done)
                num_windows = max(num_windows, planned)
        subprocess.run(resumed, check=True)
        found = contents(kept)
        if found != expected:
            num_wrong += 1
            print(f"run {number}: other bytes, or files: {sorted(found)}")
        for path in kept.iterdir():
            path.unlink()
    print(
        f"{num_kills} runs of {num_windows} windows, {num_killed} kills in {whole_seconds:.1f} s; "
        f"windows kept at the kill: 0 in {windows.count(0)}, else {least(windows)} to "
        f"{max(windows, default=0)}; identical bytes: {num_kills - num_wrong} of {num_kills}"
    )
    return 1 if num_wrong else 0


def least(windows: list[int]) -> int:
    """The fewest windows that were kept, of those runs that kept any."""
    return min((done for done in windows if done), default=0)


def progress(record: Path) -> tuple[int, int]:
    """Finished and planned windows of a run that was killed."""
    if not record.is_file():
        return 0, 0
    about = json.loads(record.read_text(encoding="utf-8"))
    return about["done"], len(about["windows"] or ())


def contents(folder: Path) -> dict[str, bytes]:
    """All that a folder holds, by name; of folders, that they are there."""
    return {
        path.name: path.read_bytes() if path.is_file() else b"folder" for path in folder.iterdir()
    }


if __name__ == "__main__":
    sys.exit(main())
