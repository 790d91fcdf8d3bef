"""The options of a run of ``impute``: one list, which the command line and all others use."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ragimpute.arguments import check_fields_of, with_changes
from ragimpute.io.vcf.bgzf import LEVEL
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.io.vcf.write.sample_text import DIGITS
from ragimpute.phasing.phase_target import PhaseOptions
from ragimpute.sites import Region
from ragimpute.target.inputs import InputFiles, TargetOptions

# The sets below say which options do not change something. An option in none of them is taken to
# change what is written and what is fitted to the panel. So if a new option is forgotten here, it
# may prevent that a run is resumed or a stored fit used, but no result is wrong.

# Files that a run reads, and what messages call them. Their content counts, not their names.
_READ = {
    "genetic_map": "map input",
    "samples": "list of samples",
    "exclude_samples": "excluded samples",
    "fasta": "FASTA input",
    "chain": "chain input",
    "sites_file": "list of sites",
    "index": "index",
}
# Files that a run writes (an array fit is read too, where it exists, and changes no dosage).
_WRITTEN = {
    "array_fit": "array fit",
    "excluded_sites": "excluded sites",
    "sites_status": "status of sites",
    "sites": "sites",
    "empirical": "empirical",
}
# Options that do not change the output.
_HOW = frozenset(("threads", "resume"))
# Options that change the output, but not the fit to the panel and the typed sites, of which the fit
# keeps checksums, as of the model's weights.
_NOT_FITTED = frozenset((
    "model", "cm_per_mb", "region", "fields", "window_cm", "buffer_cm", "device", "max_memory",
    "palindromes", "par", "gvcf_min_gq", "likelihoods", "use_indel_likelihoods", "min_r2",
    "min_gp", "typed_only", "phased_only", "with_targets", "join_multiallelics", "output_type",
    "digits", "compression_level", "bgen_bits", "bgen_compression", "bgen_phased", "pvar",
    "pgen_phased",
))  # fmt: skip


@dataclass(frozen=True)
class OutputOptions:
    """What is written beside, or left out of, the imputed sites.

    Attributes
    ----------
    min_r2
        Untyped sites of a lower DR2 are left out; 0: all are written.
    min_gp
        A genotype whose largest GP is lower is written as missing; DS and GP stay. 0: none is.
    typed_only
        Write the target's records that the panel lacks too, flagged TYPED_ONLY.
    sites
        A VCF/BCF of the same sites without samples, or None.
    empirical
        A VCF/BCF of the typed sites with GT and LDS, or None.
    join_multiallelics
        Write the sites of one position and REF that exclude each other as one record with several
        ALTs; not in ``empirical``.
    output_type
        Format of the imputed output, a key of
        :data:`ragimpute.io.imputed.OUTPUT_TYPES`; None: as its suffix says.
    digits
        Decimals of the probabilities in FORMAT fields and of dosages in a PGEN, 2 to 4;
        ``benchmarks/output_size.py`` measures what they change of r2, and how large the files are.
    compression_level
        Of VCF.gz, BCF and BGEN, and of the table of sites beside a PGEN, 1 (fast) to 12 (small).
    bgen_bits, bgen_compression, bgen_phased
        Of a BGEN, see :class:`ragimpute.io.bgen.writer.BgenOptions`.
    pvar, pgen_phased
        Of a PGEN, see :class:`ragimpute.io.pgen.writer.PgenOptions`.
    sites_file
        A list of the sites to write, see
        :func:`ragimpute.io.site_list.read_site_list`; None: all. The values are those of a
        run that writes all.
    sites_status
        A table of what became of each row of ``sites_file``, or None.
    """

    min_r2: float = 0.0
    typed_only: bool = False
    sites: Path | None = None
    empirical: Path | None = None
    join_multiallelics: bool = False
    output_type: str | None = None
    digits: int = DIGITS
    compression_level: int = LEVEL
    bgen_bits: int = 8
    bgen_compression: str = "zlib"
    bgen_phased: bool = False
    pvar: str = "zst"
    pgen_phased: bool = False
    min_gp: float = 0.0
    sites_file: Path | None = None
    sites_status: Path | None = None

    def __post_init__(self) -> None:
        check_fields_of(self)


@dataclass(frozen=True)
class ImputeOptions:
    """All options of a run of :func:`ragimpute.imputation.impute.impute`.

    Numbers out of range are InputErrors, see :func:`ragimpute.arguments.check_ranges`.

    Attributes
    ----------
    index
        A folder that ``ragimpute index`` made, or None to retrieve without one.
    model
        A shipped model's name, or a folder that ``ragimpute train`` made.
    genetic_map, cm_per_mb
        For a panel VCF only: a map, or a uniform rate.
    region
        Sites to write; None: all of the panel.
    fields
        FORMAT fields, of GT, DS, GP, HDS, AP.
    ne, err
        Effective population size, in [1, 1e9], and mismatch probability, in [1e-6, 0.4]; None:
        chosen on the panel.
    fine_tune
        Whether a copying model's network is fitted to the panel first, see
        :func:`ragimpute.copying_model.fine_tuning.adapt_network`.
    array_fit
        A file that stores what was fitted to the panel and the set of typed sites. It is read if
        it exists and written otherwise, so that the next run with the same panel, region, typed
        sites and model need not fit again. It changes no dosage. Copying models only.
    threads, seed
        The output does not depend on ``threads``.
    window_cm, buffer_cm
        See :func:`ragimpute.imputation.windows.plan_windows`.
    device
        "auto", "cpu" or "cuda": where a network runs.
    max_memory
        Bytes that the process may use; None: what is free, and no more than pays.
    resume
        Keep finished windows beside the output until it is complete, and go on from those that an
        earlier run of the same inputs and options left (see :mod:`ragimpute.imputation.resume`).
    target_options
        Which of the target's samples and records are used.
    output_options
        What is written beside the imputed sites, or left out of them.
    phase_options
        How unphased genotypes are phased, or that they are refused.
    """

    index: str | Path | None = None
    model: str | Path = "default"
    genetic_map: str | Path | None = None
    cm_per_mb: float | None = None
    region: Region | None = None
    fields: Sequence[str] = ("GT", "DS", "GP")
    ne: float | None = None
    err: float | None = None
    fine_tune: bool = True
    array_fit: str | Path | None = None
    threads: int = 1
    seed: int = 1
    window_cm: float = 40.0
    buffer_cm: float = 2.0
    device: str = "auto"
    max_memory: int | None = None
    resume: bool = False
    target_options: TargetOptions = field(default_factory=TargetOptions)
    output_options: OutputOptions = field(default_factory=OutputOptions)
    phase_options: PhaseOptions = field(default_factory=PhaseOptions)

    def __post_init__(self) -> None:
        check_fields_of(self)
        object.__setattr__(self, "fields", tuple(self.fields))

    @classmethod
    def of(cls, options: ImputeOptions | None, **changes: object) -> ImputeOptions:
        """Options, the defaults if None, with some of them changed.

        Raises
        ------
        TypeError
            If a change is not an option; the message names those that are.
        """
        return with_changes(options or cls(), changes, "impute")

    def values(self) -> dict[str, object]:
        """All options by name, in one dictionary: those of target, output and phasing too."""
        flat: dict[str, object] = {}
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            nested = one.name.endswith("_options")
            flat |= _values_of(value) if nested else {one.name: value}
        return flat

    def input_files(self, target: str | Path | Target, panel: str | Path) -> InputFiles:
        """The files that are read, and which part of them."""
        return InputFiles(
            target, panel, genetic_map=self.genetic_map, cm_per_mb=self.cm_per_mb,
            region=self.region, buffer_cm=self.buffer_cm, options=self.target_options,
        )  # fmt: skip

    def files_read(self) -> dict[str, str | Path | None]:
        """The files that a run reads beside target, panel and model, by what a user calls them."""
        return self._files(_READ)

    def files_written(self) -> dict[str, str | Path | None]:
        """The files that a run writes beside the imputed one, by what a user calls them."""
        return self._files(_WRITTEN)

    def of_output(self) -> dict[str, object]:
        """The options that change what is written, by name, as JSON can hold them.

        Files are not among them: see :meth:`files_read`.
        """
        without = {*_READ, *_WRITTEN, *_HOW}
        return {name: _plain(value) for name, value in self.values().items() if name not in without}

    def of_fit(self) -> dict[str, object]:
        """The options that change what a copying model fits to a panel, by name."""
        return {name: value for name, value in self.of_output().items() if name not in _NOT_FITTED}

    def _files(self, names: dict[str, str]) -> dict[str, str | Path | None]:
        """Some of the files, by what a user calls them."""
        values = self.values()
        return {told: values[name] for name, told in names.items()}  # type: ignore[misc]


def _values_of(options: TargetOptions | OutputOptions | PhaseOptions) -> dict[str, object]:
    """The fields of a dataclass by name."""
    return {one.name: getattr(options, one.name) for one in dataclasses.fields(options)}


def _plain(value: object) -> object:
    """A value as JSON can hold it: paths and regions as text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value)
