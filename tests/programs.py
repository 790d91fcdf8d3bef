"""Programs that pip cannot bring: a test that calls one skips where it is missing.

A test names its program with ``@pytest.mark.needs_program("plink2")``, and the reason of the skip
names the Debian package. Where everything is meant to be there, as in continuous integration,
RAGIMPUTE_TESTS_MAY_NOT_SKIP=1 makes such a test fail instead of skip.
"""

from __future__ import annotations

import os
import shutil

import pytest

MAY_NOT_SKIP = "RAGIMPUTE_TESTS_MAY_NOT_SKIP"
# The Debian package of each program; None for those that Debian has not.
PACKAGES = {"bcftools": "bcftools", "plink2": "plink2", "zstd": "zstd", "xz": "xz-utils",
            "bzip2": "bzip2", "unzip": "unzip", "nextflow": None,
            "bgenix": None, "cat-bgen": None}  # fmt: skip


def require_program(name, environment=os.environ):
    """Skip the running test, or fail it, if a program is not on the path.

    Parameters
    ----------
    name
        A key of :data:`PACKAGES`.
    environment
        Where PATH and RAGIMPUTE_TESTS_MAY_NOT_SKIP are looked up.
    """
    package = PACKAGES[name]
    if shutil.which(name, path=environment.get("PATH", "")):
        return
    if package is None:
        pytest.skip(f"{name} is not installed, and Debian has no package of it")
    reason = f"{name} is not installed: install the Debian package {package}"
    if environment.get(MAY_NOT_SKIP) == "1":
        pytest.fail(f"{reason} ({MAY_NOT_SKIP} is set)", pytrace=False)
    pytest.skip(reason)
