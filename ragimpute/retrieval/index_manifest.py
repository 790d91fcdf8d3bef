"""The manifest of an index folder: what it was made from, and the checksum of every file.

A module of its own, without FAISS, so that an index can be described where FAISS is missing.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragimpute.commands import free_name, operand
from ragimpute.errors import PanelError
from ragimpute.runtime.outputs import new_folder

if TYPE_CHECKING:
    from ragimpute.panel.reader import Panel

FORMAT = "ragimpute-index"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
#: The folder of what was made for arrays, see ``ragimpute.copying_model.array_index``.
ARRAYS = "arrays"
#: The kind of an index whose haplotypes cannot be searched: it has no FAISS windows.
NO_SEARCH = "none"


def read_manifest(path: str | Path, *, typed: str | Path | None = None) -> dict[str, Any]:
    """Read the manifest of an index folder, and check its form and version.

    Parameters
    ----------
    path
        The folder.
    typed
        A file of the sites of an array: hints say how to index it. None: they index haplotypes.

    Raises
    ------
    PanelError
        If ``path`` is not an index folder of this version.
    """
    path = Path(path)
    file = path / MANIFEST
    if not file.is_file():
        problem = "does not exist" if not path.exists() else f"holds no {MANIFEST}"
        raise PanelError(
            f"index {path} {problem}",
            hint=f"make one: {_index_command(free_name(path, '.index'), typed=typed)}",
        )
    needed: dict[str, Any] = {
        "manifest_sha256": str,
        "panel_checksum": str,
        "num_haplotypes": int,
        "num_sites": int,
        "markers_hex": str,
        "kind": str,
        "num_lists": int,
        "num_probes": int,
        "recall_at_10": (int, float),
        "windows": list,
        "files": list,
    }
    try:
        manifest: dict[str, Any] = json.loads(file.read_text())
        version = manifest.get("format_version")
        fits = manifest.get("format") == FORMAT and all(
            isinstance(manifest.get(key), kind) for key, kind in needed.items()
        )
        fits = fits and len(manifest["windows"]) == len(manifest["files"])
    except (OSError, UnicodeDecodeError, ValueError, AttributeError) as error:
        raise PanelError(
            f"index {path} is damaged: {MANIFEST} cannot be read",
            hint=f"make it again: {_index_command(path, force=True, typed=typed)}",
        ) from error
    if not fits or version != FORMAT_VERSION:
        raise PanelError(
            f"index {path} is not an index of version {FORMAT_VERSION} (found version {version})",
            hint=f"make it again: {_index_command(path, force=True, typed=typed)}",
        )
    if manifest["manifest_sha256"] != manifest_digest(manifest):
        raise PanelError(
            f"index {path} is damaged: {MANIFEST} does not match its checksum",
            hint=f"make it again: {_index_command(path, force=True, typed=typed)}",
        )
    whole = all(map(_is_window, manifest["windows"])) and all(map(_is_file, manifest["files"]))
    if not whole or not _are_markers(manifest):
        raise PanelError(
            f"index {path} is damaged: windows, files or markers of {MANIFEST} are amiss",
            hint=f"make it again: {_index_command(path, force=True, typed=typed)}",
        )
    return manifest


def read_manifest_of(
    path: str | Path, panel: Panel, *, typed: str | Path | None = None
) -> dict[str, Any]:
    """Read the manifest of an index folder, and check that it was made from this panel.

    ``typed``: see :func:`read_manifest`.

    Raises
    ------
    PanelError
        As :func:`read_manifest` does, and if the index was made from another panel or does not fit.
    """
    manifest = read_manifest(path, typed=typed)
    with_sites = " (and the --typed-sites that it was made with)" if manifest["markers_hex"] else ""
    if manifest["panel_checksum"] != panel.checksum:
        raise PanelError(
            f"index {path} was made from another panel (checksum "
            f"{manifest['panel_checksum'][:12]}) than {panel.path} ({panel.checksum[:12]})",
            hint=f"make it again: {index_command(panel, path, typed=typed)}{with_sites}",
        )
    size = (manifest["num_haplotypes"], manifest["num_sites"])
    last = max((stop for _, stop in manifest["windows"]), default=0)
    num_haplotypes = panel.ploidy_present.shape[1]  # those of the file, also of a part of the panel
    if size != (num_haplotypes, panel.num_sites) or last > size[1]:
        raise damaged(
            path,
            panel,
            f"it is of {size[0]} haplotypes and {size[1]} sites, its panel of "
            f"{num_haplotypes} and {panel.num_sites}",
        )
    return manifest


def require_all_sites(path: str | Path, panel: Panel, windows: Iterable[Sequence[int]]) -> None:
    """Refuse an index whose windows, half-open ranges of sites, leave out sites of its panel.

    Raises
    ------
    PanelError
        If they do.
    """
    covered = 0
    for start, stop in sorted((int(start), int(stop)) for start, stop in windows):
        if start > covered:
            break
        covered = max(covered, stop)
    if covered != panel.num_sites:
        raise damaged(path, panel, f"its windows do not cover the panel's {panel.num_sites} sites")


def index_command(panel: Panel, path: str | Path, *, typed: str | Path | None = None) -> str:
    """The command that makes an index again in its folder."""
    return _index_command(path, operand(panel.path), force=True, typed=typed)


def _index_command(
    path: str | Path,
    panel: str = "PANEL.h5",
    *,
    force: bool = False,
    typed: str | Path | None = None,
) -> str:
    """The command that makes an index in a folder."""
    words = ["ragimpute", "index", panel]
    if typed is not None:
        words.append(f"--typed-sites={typed}")
    words += ["-o", operand(path)]
    return shlex.join([*words, "--force"] if force else words)


def damaged(
    path: str | Path, panel: Panel, what: str, *, typed: str | Path | None = None
) -> PanelError:
    """The error for an index folder that was made from a panel, and is not as it was made.

    ``typed``: see :func:`read_manifest`.
    """
    return PanelError(
        f"index {path} is damaged: {what}",
        hint=f"make it again: {index_command(panel, path, typed=typed)}",
    )


def damaged_folder(path: str | Path, what: str, *, typed: str | Path | None = None) -> PanelError:
    """As :func:`damaged`, where the panel is not known."""
    return PanelError(
        f"index {path} is damaged: {what}",
        hint=f"make it again: {_index_command(path, force=True, typed=typed)}",
    )


def write_manifest(path: Path, entries: dict[str, Any]) -> None:
    """Write the manifest of an index folder: its format, the entries, and their checksum."""
    manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, **entries}
    manifest["manifest_sha256"] = manifest_digest(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def make_folder(path: Path, panel: Panel) -> None:
    """Make an index folder without FAISS windows, unless it is there already.

    Of several processes that make it at the same time, the first one does.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    if (path / MANIFEST).is_file():
        return
    with new_folder(path) as temporary:
        temporary.mkdir()
        write_manifest(
            temporary,
            {
                "panel_checksum": panel.checksum, "num_haplotypes": panel.num_haplotypes,
                "num_sites": panel.num_sites, "num_markers": panel.num_sites, "markers_hex": "",
                "metric": "hamming, two bits a site", "kind": NO_SEARCH, "num_lists": 0,
                "num_probes": 0, "recall_at_10": 0.0, "windows": [], "files": [],
            },
        )  # fmt: skip


def verify_files(path: str | Path) -> None:
    """Read all FAISS windows of an index folder, and compare them with their checksums.

    Raises
    ------
    PanelError
        If one is missing or differs.
    """
    path = Path(path)
    for entry in read_manifest(path)["files"]:
        file = path / entry["file"]
        if not file.is_file() or sha256_of(file) != entry["sha256"]:
            state = "does not match its checksum" if file.is_file() else "is missing"
            raise damaged_folder(path, f"{file.name} {state}")


def manifest_digest(manifest: dict[str, Any]) -> str:
    """The checksum of a manifest's entries, apart from the checksum itself."""
    rest = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def sha256_of(file: Path) -> str:
    """The checksum of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _is_window(entry: Any) -> bool:
    """Whether an entry of ``windows`` is a range of sites."""
    return (
        isinstance(entry, list)
        and [type(end) for end in entry] == [int, int]
        and 0 <= entry[0] < entry[1] < 2**31
    )


def _is_file(entry: Any) -> bool:
    """Whether an entry of ``files`` names a file in the folder, and its checksum."""
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
        return False
    name = entry.get("file")
    return isinstance(name, str) and name == Path(name).name and "\0" not in name


def _are_markers(manifest: dict[str, Any]) -> bool:
    """Whether ``markers_hex`` has a bit for each site, or is empty, which means all sites."""
    text = manifest["markers_hex"]
    is_hex = not text or re.fullmatch("[0-9a-f]+", text) is not None
    return is_hex and len(text) in (0, 2 * -(-manifest["num_sites"] // 8))
