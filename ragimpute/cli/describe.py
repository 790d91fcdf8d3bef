"""``ragimpute info FILE``: says what a file or folder is, as rows of a name and a value."""

from __future__ import annotations

import gzip
import json
import math
import operator
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragimpute.commands import command_word
from ragimpute.config import load_config
from ragimpute.errors import InputError, ModelError, PanelError, RagimputeError
from ragimpute.io.foreign import foreign_format, prepare_command
from ragimpute.presets import models_dir, preset_names
from ragimpute.sites import MAX_BP, Region

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# Records are counted only in files up to this size, as larger ones would take minutes.
_MAX_COUNTED_BYTES = 2**28
_SHOWN = 6
_EPOCHS = "epoch-*.safetensors"  # training.state.EPOCHS; its module needs torch
_KNOWN = (
    "known are: panel.h5, a scikit-allel HDF5, M3VCF, VCF/VCF.gz/BCF, PLINK's bed and pgen, raw "
    "text of 23andMe and other vendors, a genetic map, the folders "
    "that 'ragimpute index' and 'ragimpute train' write, and the names of shipped models"
)
_MODEL_FILES = ("config.yaml", "weights.safetensors", "provenance.json")
_INDEX_FILE = "manifest.json"

if TYPE_CHECKING:
    from ragimpute.io.plink.file_set import PlinkFile
    from ragimpute.io.raw_text.raw_text import RawTextFile

Rows = list[tuple[str, str]]


def describe(path: str | Path) -> Rows:
    """Say what a file or folder is.

    Parameters
    ----------
    path
        A panel (panel.h5, scikit-allel HDF5, M3VCF, VCF/BCF), an index folder, a model folder or a
        shipped model's name, a target (VCF/BCF, PLINK, raw text), or a genetic map. The content
        decides, not the name.

    Returns
    -------
    Names and values, the first of them ("kind", ...).

    Raises
    ------
    InputError
        If there is no such file, or it is of no kind that is known.
    RagimputeError
        If it is of a known kind, but damaged or of another version.
    """
    path = Path(path)
    if not path.exists():
        if str(path) in preset_names():
            return _describe_model(models_dir() / path)
        raise InputError(f"{path} does not exist", hint=_KNOWN)
    if path.is_dir():
        if (path / _INDEX_FILE).is_file():
            return _describe_index(path)
        if any((path / name).is_file() for name in _MODEL_FILES):
            return _describe_model(path)
        raise InputError(f"folder {path} is neither an index nor a model", hint=_KNOWN)
    start = _first_bytes(path)
    if start.startswith(_HDF5_MAGIC):
        return _describe_hdf5(path)
    if start.startswith((b"##fileformat=VCF", b"BCF")):
        return _describe_vcf(path)
    from ragimpute.io.m3vcf import is_m3vcf

    if is_m3vcf(path):
        return _describe_m3vcf(path)
    from ragimpute.io.target_file import open_target
    from ragimpute.io.vcf.read.records import VcfFile

    file = open_target(path)
    if not isinstance(file, VcfFile):
        return _describe_target(file)
    foreign = foreign_format(path, start)
    if foreign is not None:
        raise foreign
    return _describe_map(path)


def _describe_target(file: PlinkFile | RawTextFile) -> Rows:
    """Describe a file that only targets come in."""
    counts = file.num_records
    rows = [("kind", file.kind), ("samples", _names(file.samples))]
    rows += [(f"contig {name}", f"{counts[name]:,} records") for name in list(counts)[:_SHOWN]]
    if len(counts) > _SHOWN:
        rows.append(("more contigs", _names(list(counts)[_SHOWN:])))
    return [*rows, *file.about(), ("size", _size(file.path.stat().st_size))]


def _first_bytes(path: Path) -> bytes:
    """The first bytes of a file, decompressed if it is gzip."""
    with path.open("rb") as file:
        start = file.read(32)
    if start[:2] != b"\x1f\x8b":
        return start
    try:
        with gzip.open(path, "rb") as file:
            return file.read(32)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is a gzip file that cannot be read: {error}",
            hint="copy or make the file again",
        ) from error


def _describe_hdf5(path: Path) -> Rows:
    """Describe a panel.h5 or a scikit-allel HDF5."""
    from ragimpute.panel.reader import Panel

    try:
        with Panel.open(path) as panel:
            return _describe_panel(path, panel)
    except PanelError as problem:
        from ragimpute.preparation.allel_stream import AllelStream

        try:
            stream = AllelStream(path)
        except InputError:
            raise problem from None
        return [
            ("kind", "scikit-allel HDF5"),
            ("contig", stream.contig),
            ("rows", f"{stream.num_sites:,}"),
            ("samples", _names(stream.samples)),
            ("size", _size(path.stat().st_size)),
            ("panel", f"made of it by {prepare_command(path)}"),
        ]


def _describe_m3vcf(path: Path) -> Rows:
    """Describe a panel of Minimac as text."""
    from ragimpute.io.m3vcf import M3vcfStream

    stream = M3vcfStream(path)
    return [
        ("kind", "panel of Minimac (M3VCF or MVCF)"),
        ("contig", stream.contig),
        ("samples", _names(stream.samples)),
        ("size", _size(path.stat().st_size)),
        ("panel", f"made of it by {prepare_command(path)}"),
    ]


def _describe_panel(path: Path, panel: Any) -> Rows:
    """Describe an open panel."""
    from ragimpute.io.vcf.site_info import declared_fields

    positions, cm = panel.sites.position_bp, panel.position_cm
    length = f", {panel.contig_length:,} bp long" if panel.contig_length else ""
    in_population = np.bincount(panel.population, minlength=len(panel.populations)).tolist()
    populations = [
        f"{name} {count:,}" for name, count in zip(panel.populations, in_population, strict=True)
    ]
    of_type = np.bincount(panel.site_type, minlength=len(panel.site_types)).tolist()
    types = [f"{n:,} {name}" for name, n in zip(panel.site_types, of_type, strict=True) if n]
    maf = np.minimum(panel.af, 1 - panel.af)
    rows = [
        ("kind", "panel"),
        ("contig", panel.contig + length),
        ("samples", f"{_names(panel.samples)}, {panel.num_haplotypes:,} haplotypes"),
        ("populations", ", ".join(populations)),
        ("sites", f"{panel.num_sites:,}" + (f": {', '.join(types)}" if types else "")),
    ]
    if panel.num_sites:
        rows += [
            ("range", f"{positions[0]:,} - {positions[-1]:,} bp, {cm[-1] - cm[0]:.3f} cM"),
            ("MAF <= 0.01", f"{int((np.round(maf, 7) <= 0.01).sum()):,} sites"),
        ]
    if panel.sites.info is not None:
        fields = ", ".join(sorted(declared_fields(panel.declarations))) or "none"
        told = int((panel.sites.info != "").sum())
        rows.append(("INFO of alleles", f"{fields}; at {told:,} sites"))
    if len(panel.ploidy_start) > 1:
        sizes = panel.ploidy_present.sum(axis=1).tolist()
        parts = [
            f"{size:,} from {positions[start]:,} on"
            for size, start in zip(sizes, panel.ploidy_start.tolist(), strict=True)
        ]
        rows.append(("haplotypes", ", ".join(parts)))
    return [
        *rows,
        ("windows", f"{len(panel.windows):,}"),
        ("made by", f"ragimpute {panel.provenance['ragimpute_version']}"),
        ("source", panel.provenance["source"]),
        ("genetic map", panel.provenance["genetic_map"] or "not recorded"),
        ("checksum", panel.checksum),
        ("size", _size(path.stat().st_size)),
    ]


def _describe_index(path: Path) -> Rows:
    """Describe an index folder."""
    from ragimpute.copying_model.array_index import held_arrays
    from ragimpute.retrieval.index_manifest import read_manifest

    manifest = read_manifest(path)
    rows: Rows = [
        ("kind", "index of a panel"),
        ("haplotypes", f"{manifest['num_haplotypes']:,}"),
        ("sites", f"{manifest['num_sites']:,}"),
    ]
    rows += _search_rows(path, manifest)
    for array in held_arrays(path):
        settings = [
            f"{name} {value}" for name, value in array.about.items()
            if name not in ("format", "ragimpute", "typed", "model") and value not in ("None", "")
        ]  # fmt: skip
        told = [
            f"{array.num_typed:,} typed sites", f"{array.num_windows:,} windows",
            f"model {array.model_name or array.about.get('model', '')[:12]}", *settings,
            _size(array.num_bytes),
        ]  # fmt: skip
        rows.append((f"array {Path(array.source).name}", ", ".join(told)))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return [*rows, ("panel checksum", manifest["panel_checksum"]), ("size", _size(size))]


def _search_rows(path: Path, manifest: dict[str, Any]) -> Rows:
    """How the haplotypes of an index are searched, if it has FAISS windows."""
    from ragimpute.retrieval.index_manifest import NO_SEARCH

    kind = manifest["kind"]
    if kind == NO_SEARCH:
        return [("search", "no FAISS windows")]
    if kind == "ivf":
        kind += f", {manifest['num_lists']:,} lists, {manifest['num_probes']:,} probed"
    rows = [
        ("search", kind),
        ("recall at 10", f"{manifest['recall_at_10']:.3f}"),
        ("windows", f"{len(manifest['windows']):,}"),
    ]
    if isinstance(manifest.get("num_markers"), int):
        rows.append(("sites searched", f"{manifest['num_markers']:,}"))
    files = [path / entry["file"] for entry in manifest["files"]]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        rows.append(("absent files", _names(absent)))
    return rows


def verify(path: Path) -> None:
    """Read all of a panel.h5 or an index, and compare it with its checksums.

    Raises
    ------
    InputError
        If it is neither.
    PanelError
        If it is damaged.
    """
    if path.is_dir() and (path / _INDEX_FILE).is_file():
        from ragimpute.copying_model.array_index import held_arrays
        from ragimpute.retrieval.index_manifest import verify_files

        verify_files(path)
        for array in held_arrays(path):
            for file in array.files:
                file.verify()
        return
    if not path.is_file() or not _first_bytes(path).startswith(_HDF5_MAGIC):
        raise InputError(f"{path} has no checksums", hint="--verify is for a panel.h5 or an index")
    from ragimpute.panel.reader import Panel

    with Panel.open(path) as panel:
        panel.verify()


def _describe_model(path: Path) -> Rows:
    """Describe a model folder; files may be missing from it."""
    config_file, weights, provenance = (path / name for name in _MODEL_FILES)
    is_trained = weights.is_file() or not config_file.is_file()
    rows: Rows = [("kind", "model" if is_trained else "preset: the configuration of a model")]
    if config_file.is_file():
        config = load_config(path)
        rows += [("name", config.name), ("fusion", config.model.fusion.name)]
        if config.description:
            rows.append(("description", config.description))
    else:
        rows.append(("config", f"{config_file.name} is absent, so the model cannot be used"))
    if weights.is_file():
        numbers, about = _weights_header(weights)
        rows += [
            ("parameters", f"{numbers:,}"),
            ("input", about.get("input", "unknown")),
            ("weights", _size(weights.stat().st_size)),
        ]
    else:
        rows.append(("weights", "none: nothing can be imputed with it until it is trained"))
    if epochs := sorted(path.glob(_EPOCHS), key=lambda file: (len(file.name), file.name)):
        rows.append(("weights of epochs", f"{len(epochs)}, {epochs[0].name} to {epochs[-1].name}"))
    if provenance.is_file():
        rows += _provenance_rows(provenance)
    return rows


def _weights_header(path: Path) -> tuple[int, dict[str, str]]:
    """How many numbers a safetensors file holds, and its metadata, from its header alone."""
    damaged = ModelError(f"weights {path} are damaged", hint="copy the model folder again")
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise damaged
            header = json.loads(file.read(length))
        about = header.pop("__metadata__", {})
        if not all(isinstance(value, str) for value in about.values()):
            raise damaged
        shapes = [entry["shape"] for entry in header.values()]
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        num_numbers = sum(math.prod(map(operator.index, shape)) for shape in shapes)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise damaged from error
    if path.stat().st_size != 8 + length + end:
        raise damaged
    return num_numbers, about


def _provenance_rows(path: Path) -> Rows:
    """The content of provenance.json as rows."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        entries = sorted(tree.items())
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}", hint="copy the model folder again"
        ) from error
    rows = []
    for name, value in entries:
        if isinstance(value, dict):
            value = ", ".join(f"{key} {item}" for key, item in sorted(value.items()))
        if value not in ("", None):
            rows.append((name.replace("_", " "), str(value)))
    return rows


def _describe_vcf(path: Path) -> Rows:
    """Describe a VCF, VCF.gz or BCF."""
    from ragimpute.io.vcf.index import index_path
    from ragimpute.io.vcf.read.records import RecordReader, VcfFile

    file = VcfFile(path)
    header, contigs = file.header, file.contigs
    index = index_path(header)
    kind = "BCF" if header.is_bcf else "VCF"
    kind += {"none": "", "gzip": ", gzipped (bgzip is needed for an index)"}.get(
        header.compression, ", bgzipped"
    )
    rows = [("kind", kind), ("samples", _names(header.samples))]
    count_records = path.stat().st_size <= _MAX_COUNTED_BYTES
    for number, (name, length) in enumerate(contigs.items()):
        if number == _SHOWN:
            rows.append(("more contigs", _names(list(contigs)[_SHOWN:])))
            break
        text = "" if length is None else f"{length:,} bp long"
        if count_records:
            first, last, count = 0, 0, 0
            reader = RecordReader(file, Region(name), 1, genotypes_only=True)
            for record in reader.records(sort_check=False, refuse_beyond=False):
                count += 1
                first = min(first or record.POS, record.POS)
                last = max(last, record.POS)
            place = f", {first:,} - {last:,} bp" if count else ""
            text = f"{count:,} records{place}" + (f", {text}" if text else "")
            if reader.num_beyond:
                text += (
                    f"; {reader.num_beyond:,} records more at positions above {MAX_BP:,}, which no "
                    f"command can use: --region '{Region(name, 1, MAX_BP + 1)}' leaves them out"
                )
        rows.append((f"contig {name}", text or "has records"))
    if not contigs:
        rows.append(("contigs", "no records"))
    if not count_records:
        command = f"bcftools view -H {command_word(path)} | wc -l"
        rows.append(("records", f"not counted, as the file is large: {command}"))
    return [
        *rows,
        ("FORMAT", ", ".join(sorted(header.formats)) or "none"),
        ("INFO", ", ".join(sorted(header.infos)) or "none"),
        ("index", index.name if index else "none, or older than the file"),
        ("size", _size(path.stat().st_size)),
    ]


def _describe_map(path: Path) -> Rows:
    """Describe a genetic map, the kind that is tried last."""
    from ragimpute.preparation.genetic_map import GeneticMap, map_contigs

    try:
        contigs = map_contigs(path)
    except RagimputeError as error:
        raise InputError(
            f"{path} is of no kind that is known, and no genetic map either: {error.message}",
            hint=_KNOWN,
        ) from error
    rows = [("kind", "genetic map")]
    names: list[str | None] = [*contigs] or [None]
    for name in names:
        read = GeneticMap.read(path, contig=name)
        at, cm = read.position_bp, read.map_cm
        rows.append(
            (
                f"contig {name}" if name else "contig not named",
                f"{len(at):,} positions, {at[0]:,.0f} - {at[-1]:,.0f} bp, {np.ptp(cm):.3f} cM, "
                f"{read.mean_rate:.3f} cM/Mb on average",
            )
        )
    return [*rows, ("size", _size(path.stat().st_size))]


def _names(names: Sequence[str]) -> str:
    """How many names there are, and the first of them."""
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names):,} ({shown})" if names else "0"


def _size(num_bytes: int) -> str:
    """A size in bytes, with a unit."""
    size, unit = float(num_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:,.0f} bytes" if unit == "bytes" else f"{size:,.1f} {unit}"
