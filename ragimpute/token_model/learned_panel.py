"""Whether a token model is used on the panel that it learned."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragimpute.commands import operand
from ragimpute.contigs import same_contig
from ragimpute.errors import ModelError
from ragimpute.model.folder import CONFIG, ModelFolder
from ragimpute.panel.reader import Panel


def require_contig(model: ModelFolder, panel: Panel, path: str | Path) -> str | None:
    """Compare the panel that a token model learned with the one that it is to impute from.

    A token model knows no haplotype and no site of its panel by number: it reads alleles, genetic
    positions and frequencies of the panel at hand. So it can be used on another panel of the same
    contig, such as an updated one, though nothing says how accurate it is there. On another contig
    nothing that it learned of what lies beside what holds, so it is refused. Copying models learn
    nothing about a panel's sites, and are not compared.

    Parameters
    ----------
    model
        Its provenance names the panel; without it nothing is compared.
    panel, path
        What is imputed from, and the file that the user named, of which it may have been prepared.

    Returns
    -------
    A warning if it is another panel of the same contig, else None.

    Raises
    ------
    ModelError
        If it is of another contig; the message names both panels.
    """
    other = other_panel(model, panel, path)
    if other is None:
        return None
    learned, here, is_same_contig = other
    if is_same_contig:
        return (
            f"model {model.name} learned {learned}, but imputes from {here}: its accuracy is not "
            "known there"
        )
    words = ["ragimpute", "train", operand(path), "--config", str(model.path / CONFIG)]
    raise ModelError(
        f"model {model.name} learned {learned}, and cannot impute from {here}",
        hint="use --model default, which suits every panel, or train one on this panel: "
        f"{shlex.join(words)} -o MODEL",
    )


def init_warning(model: ModelFolder, panel: Panel, path: str | Path) -> str | None:
    """A warning if a token model that training starts from learned another panel, else None."""
    other = other_panel(model, panel, path)
    if other is None:
        return None
    learned, here, _ = other
    return f"model {model.name}, from which training starts, learned {learned}, not {here}"


def other_panel(model: ModelFolder, panel: Panel, path: str | Path) -> tuple[str, str, bool] | None:
    """The panel that a token model learned and that at hand, in words, if they differ.

    The third value says whether they are of one contig. None: it is the same panel, or unknown.
    """
    panels = model.provenance.get("panels") if isinstance(model.provenance, Mapping) else None
    known = panels[0] if isinstance(panels, list) and panels else None
    if model.is_copying or not isinstance(known, Mapping) or "checksum" not in known:
        return None
    if known["checksum"] == panel.checksum:
        return None
    contig = known.get("contig")
    is_same = not isinstance(contig, str) or same_contig(contig, [panel.contig]) is not None
    here = about_panel(panel, path)
    return f"panel {_in_words(known)}", f"panel {_in_words(here)}", is_same


def about_panel(panel: Panel, path: str | Path) -> dict[str, Any]:
    """What identifies a panel: the file that the user named, what it was made of, and content."""
    return {
        "name": Path(path).name,
        "source": str(panel.provenance.get("source", "")),
        "checksum": panel.checksum,
        "contig": panel.contig,
    }


def _in_words(about: Mapping[str, Any]) -> str:
    """A panel's name, contig and checksum."""
    name = str(about.get("name") or "of an unknown name")
    source = about.get("source")
    made = f", made of {source}" if source and source != name else ""
    return f"{name} (contig {about.get('contig')}, checksum {str(about['checksum'])[:12]}{made})"
