"""The wheel's build: kernels are compiled and go into it, so that nothing compiles at first use.

A wheel is for one Python and one kind of machine, and holds the kernels of each level of
processors (see ragimpute/kernels/processor.py). An editable install has none: ``make`` compiles
those of the machine that it runs on, and ``python -m ragimpute.kernels.build`` does the same by
hand. The environment variable ``RAGIMPUTE_KERNEL_LEVELS`` sets other levels, separated by commas.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsBuildHook(BuildHookInterface):
    """Compiles what ``ragimpute/kernels/signatures.json`` lists."""

    def dependencies(self) -> list[str]:
        """What the modules of the kernels import: all that the package depends on."""
        return list(self.metadata.core.dependencies)

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel's files are collected.

        Parameters
        ----------
        version
            "standard" or "editable".
        build_data
            What hatchling is told of the wheel: more files, and its tag.
        """
        if version == "editable":
            return
        # No bytecode in the checkout: the wheel would take up what the build leaves there.
        path = os.pathsep.join([self.root, *filter(None, sys.path)])  # with the build's packages
        environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        levels = os.environ.get("RAGIMPUTE_KERNEL_LEVELS", "shipped").split(",")
        command = [sys.executable, "-m", "ragimpute.kernels.build", "--print-files"]
        for level in levels:
            command += ["--level", level]
        done = subprocess.run(
            command, cwd=self.root, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        for file in map(Path, done.stdout.splitlines()):
            place = f"ragimpute/compiled/{file.parent.name}/{file.name}"
            build_data["force_include"][str(file)] = place
        tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        # Kernels call nothing of the C library, so any Linux of this kind of machine will do.
        platform = platform.replace("linux_", "manylinux_2_17_")
        build_data["tag"] = f"{tag}-none-{platform}"
        build_data["pure_python"] = False
