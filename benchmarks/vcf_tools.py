"""bcftools without its Debian package: pysam, which pip brings, carries the same commands.

``python benchmarks/vcf_tools.py view -h file.bcf`` does what ``bcftools view -h file.bcf`` does.
Plugins (``bcftools +name``) are not part of pysam.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path


def run_bcftools(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command of bcftools.

    It runs in a process of its own: pysam's commands keep state between calls, and a second call
    in one process can abort it.

    Parameters
    ----------
    words
        The command and its arguments, as they follow ``bcftools`` in a shell.

    Returns
    -------
    Exit status, standard output and standard error, as :func:`subprocess.run` gives them.
    """
    command = [sys.executable, __file__, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def bcftools(*words: str | Path) -> str:
    """What a command of bcftools prints to standard output.

    Raises
    ------
    RuntimeError
        If the command fails or writes anything to standard error, such as a warning.
    """
    done = run_bcftools(*words)
    if done.returncode or done.stderr:
        command = shlex.join(["bcftools", *map(str, words)])
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def write_program(folder: Path) -> Path:
    """Write an executable ``bcftools`` into a folder, for programs that look for it on PATH."""
    path = folder / "bcftools"
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(__file__)} "$@"\n')
    path.chmod(0o755)
    return path


def main() -> int:
    """Run the command that ``sys.argv`` names; its exit status."""
    from pysam.libcutils import _pysam_dispatch

    if len(sys.argv) < 2:
        sys.exit(__doc__)
    command, *words = sys.argv[1:]
    if any(re.match(r"-o|--output($|=)", word) for word in words):
        # pysam gives its own -o to commands whose output it catches, so that one of ours is lost.
        status, messages, _ = _pysam_dispatch("bcftools", command, words, catch_stdout=False)
        printed = b""
    elif command == "query" and {"-l", "--list-samples"} & set(words):
        # This does not look at -o. The other queries would close the file that is given here twice.
        with tempfile.NamedTemporaryFile() as out:
            status, messages, _ = _pysam_dispatch("bcftools", command, words, save_stdout=out.name)
            printed = Path(out.name).read_bytes()
    else:
        status, messages, printed = _pysam_dispatch("bcftools", command, words)
        printed = printed.encode() if isinstance(printed, str) else printed
    os.write(2, messages.encode())
    if printed:  # pysam closes standard output where -o is given, and then there is nothing
        with open(1, "wb", closefd=False) as file:
            file.write(printed)
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())
