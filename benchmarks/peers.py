"""The tools that are compared: how each prepares a panel, and how it imputes.

Every tool gets the same panel, target and genetic map, its own defaults, and the FORMAT fields GT,
DS and GP to write.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ragimpute import __version__

TOOLS = ("ragimpute", "beagle", "minimac4")
# Programs that each tool needs, and the Debian (or Ubuntu) package of each.
NEEDS = {
    "ragimpute": {},
    "beagle": {"beagle": "beagle", "bref3": "beagle", "bcftools": "bcftools"},
    "minimac4": {"minimac4": "minimac4"},
}


@dataclass(frozen=True)
class Tool:
    """One row of the comparison.

    Attributes
    ----------
    name
        As it is shown: "ragimpute", "ragimpute v10", "Beagle", "Beagle, ne 500", "Minimac4".
    kind
        One of ``TOOLS``.
    model
        What ``ragimpute impute --model`` gets; empty for the peers.
    takes_unphased
        Whether unphased targets are imputed, rather than taken for phased.
    has_index
        Whether ragimpute is given an index of the panel and the target's array.
    ne
        The effective population size that Beagle is told; None for its default.
    """

    name: str
    kind: str
    model: str = ""
    takes_unphased: bool = True
    has_index: bool = False
    ne: int | None = None

    @property
    def slug(self) -> str:
        """The name as part of a file name."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-").lower()

    def panel_name(self) -> str:
        """File name of the prepared panel."""
        return {"ragimpute": "panel.h5", "beagle": "panel.bref3", "minimac4": "panel.msav"}[
            self.kind
        ]

    def prepare(self, panel: Path, genetic_map: Path, folder: Path) -> tuple[list[str], str | None]:
        """The command that makes the prepared panel, and the file for its standard output.

        Parameters
        ----------
        panel, genetic_map
            Phased BCF; map in PLINK's columns.
        folder
            Where the panel is written, under :meth:`panel_name`.
        """
        out = folder / self.panel_name()
        if self.kind == "ragimpute":
            inputs = ["prepare", str(panel), "--map", str(genetic_map)]
            return [*_RAGIMPUTE, *inputs, "-o", str(out), "--force", "--quiet"], None
        if self.kind == "beagle":  # reads no BCF
            pipe = f"set -o pipefail; bcftools view {shlex.quote(str(panel))} | bref3"
            return ["bash", "-c", pipe], str(out)
        return ["minimac4", "--compress-reference", str(panel)], str(out)

    def impute(
        self, target: Path, genetic_map: Path, folder: Path, out: Path, threads: int
    ) -> list[str]:
        """The command that imputes ``target`` to ``out`` (.vcf.gz) with the panel in ``folder``."""
        panel = folder / self.panel_name()
        if self.kind == "ragimpute":
            options = ["--model", self.model, "--threads", str(threads), "--device", "cpu"]
            files = ["impute", str(target), "--panel", str(panel), "-o", str(out)]
            if self.has_index:
                options += ["--index", str(self.index_folder(target, folder))]
            return [*_RAGIMPUTE, *files, *options, "--quiet"]
        if self.kind == "beagle":
            prefix = str(out).removesuffix(".vcf.gz")
            inputs = [f"ref={panel}", f"gt={target}", f"map={genetic_map}"]
            inputs += [] if self.ne is None else [f"ne={self.ne}"]
            return ["beagle", *inputs, f"out={prefix}", f"nthreads={threads}", "gp=true"]
        files = [str(panel), str(target), "--map", str(genetic_map), "-o", str(out)]
        return ["minimac4", *files, "-O", "vcf.gz", "-f", "GT,DS,GP", "-t", str(threads)]

    def index(self, target: Path, folder: Path) -> list[str]:
        """The command that indexes the panel for the target's array."""
        options = ["--model", self.model, "-o", str(self.index_folder(target, folder)), "--force"]
        return [
            *_RAGIMPUTE, "index", str(folder / self.panel_name()), "--typed-sites", str(target),
            *options, "--quiet",
        ]  # fmt: skip

    def index_folder(self, target: Path, folder: Path) -> Path:
        """The index of the panel and the target's array."""
        return folder / f"{self.slug}.{target.name}.index"

    def version(self) -> str:
        """The tool's version."""
        if self.kind == "ragimpute":
            return __version__
        command = ["beagle"] if self.kind == "beagle" else ["minimac4", "--version"]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        text = said.stdout + said.stderr
        pattern = r"\(version ([^)]+)\)" if self.kind == "beagle" else r"v?(\d+\.\d+[.\d]*)"
        found = re.search(pattern, text)
        jar = re.search(r"beagle\.(\w+\.\w+)\.jar", text)
        number = found[1] if found else "unknown"
        return f"{number} ({jar[1]})" if jar else number


def told_ne(tools: Sequence[Tool], ne: int | None) -> list[Tool]:
    """The tools, and behind Beagle a row of runs that are told the species' population size."""
    found = []
    for tool in tools:
        found.append(tool)
        if tool.kind == "beagle" and ne is not None:
            found.append(replace(tool, name=f"{tool.name}, ne {ne:,}", ne=ne))
    return found


_RAGIMPUTE = [sys.executable, "-m", "ragimpute"]


def choose_tools(
    kinds: list[str], models: list[str], *, index: bool = False
) -> tuple[list[Tool], list[str]]:
    """The tools that can run here, and a line on each one that cannot.

    Parameters
    ----------
    kinds
        Of ``TOOLS``, in the order of the tables.
    models
        Models for ragimpute, a row each: shipped names or folders; the first is the one that the
        peers are compared with.
    index
        Whether the first model gets a second row, of runs with an index of panel and array.
    """
    found: list[Tool] = []
    notes = []
    for kind in kinds:
        missing = [name for name in NEEDS[kind] if shutil.which(name) is None]
        if missing:
            packages = " ".join(dict.fromkeys(NEEDS[kind][name] for name in missing))
            notes.append(
                f"{_title(kind)} is left out, {' and '.join(missing)} not found: "
                f"install the Debian package{'s' if ' ' in packages else ''} {packages}"
            )
        elif kind == "ragimpute":
            for model in models:
                name = "ragimpute" if model == "default" else f"ragimpute {Path(model).name}"
                found.append(Tool(name, kind, model))
            if index:
                name = f"{found[-len(models)].name}, index"
                found.append(Tool(name, kind, models[0], has_index=True))
        else:
            found.append(Tool(_title(kind), kind, takes_unphased=kind != "minimac4"))
    return found, notes


def _title(kind: str) -> str:
    """A tool's name as its authors write it."""
    return {"ragimpute": "ragimpute", "beagle": "Beagle", "minimac4": "Minimac4"}[kind]
