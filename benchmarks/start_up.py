"""How long ``ragimpute --help`` takes, and ``impute`` until its first work: the shortest start.

Run: python benchmarks/start_up.py [--runs 20] [--limit 0.3] [--work-limit 0.4]

The start of ``impute`` is measured to the line that says that its panel does not exist, when all
is imported that a run of the default model needs. The script ends with exit status 1 if no start
stays below its limit, which is .3 s, or .4 s until the first work, of a machine of 2024.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time


def shortest_start(runs: int, words: list[str], status: int = 0) -> float:
    """The least wall time of several starts of ``ragimpute`` with ``words``, in seconds.

    ``status``: the exit status that is expected.
    """
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        command = [sys.executable, "-m", "ragimpute", *words]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if done.returncode != status:
            raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr!r}")
        taken.append(time.perf_counter() - began)
    return min(taken)


def main() -> int:
    """Measure and print; 1 if it took too long."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="starts of each command")
    parser.add_argument("--limit", type=float, default=0.3, help="in seconds")
    parser.add_argument("--work-limit", type=float, default=0.4, help="until the first work")
    chosen = parser.parse_args()
    slow = False
    for words in (["--help"], ["impute", "--help"], ["--version"]):
        seconds = shortest_start(chosen.runs, words)
        slow |= seconds > chosen.limit
        print(f"ragimpute {' '.join(words)}: {seconds:.2f} s")
    words = ["impute", "absent.vcf", "--panel", "absent.h5", "-o", "absent-imputed.vcf"]
    seconds = shortest_start(chosen.runs, words, status=1)
    slow |= seconds > chosen.work_limit
    print(f"ragimpute impute, until its first work: {seconds:.2f} s")
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
