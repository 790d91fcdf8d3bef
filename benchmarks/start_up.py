"""How long ``ragimpute --help`` takes: the shortest of several starts, in seconds.

Run: python benchmarks/start_up.py [--runs 20] [--limit 0.3]

It ends with exit status 1 if no start stays below the limit, which is .3 s of a machine of 2024.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time


def shortest_start(runs: int, words: list[str]) -> float:
    """The least wall time of several starts of ``ragimpute`` with ``words``, in seconds."""
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        command = [sys.executable, "-m", "ragimpute", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - began)
    return min(taken)


def main() -> int:
    """Measure and print; 1 if it took too long."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="starts of each command")
    parser.add_argument("--limit", type=float, default=0.3, help="in seconds")
    chosen = parser.parse_args()
    slow = False
    for words in (["--help"], ["impute", "--help"], ["--version"]):
        seconds = shortest_start(chosen.runs, words)
        slow |= seconds > chosen.limit
        print(f"ragimpute {' '.join(words)}: {seconds:.2f} s")
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
