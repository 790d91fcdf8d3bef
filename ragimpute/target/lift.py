"""A target of another genome build, lifted to the panel's by a chain file."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ragimpute.contigs import human_build, same_contig
from ragimpute.errors import InputError
from ragimpute.io.chain import ChainFile
from ragimpute.io.source import SourceFacts
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.io.vcf.read.records import LeftOut, site_table
from ragimpute.panel.reader import Panel
from ragimpute.sites import Key, other_strand
from ragimpute.symbolic import is_symbolic
from ragimpute.target.builds import (
    lift_hint,
    panel_build,
    positions_build,
    target_build,
)
from ragimpute.target.match import compare_positions
from ragimpute.target.sex import sex_chromosome

# Why a record is not lifted; "" if it is.
REASONS = (
    "", "lift_unmapped", "lift_several", "lift_other_contig", "lift_broken", "lift_inverted_indel",
)  # fmt: skip
_LIFTED, _UNMAPPED, _SEVERAL, _OTHER_CONTIG, _BROKEN, _INVERTED_INDEL = range(len(REASONS))
# Positions contradict a header only where so many records fit, and twice as many as otherwise.
_FEWEST_FITTING = 20
_RCRS = 16_569  # bp of the human MT in GRCh37 and GRCh38


@dataclass(frozen=True)
class _Places:
    """Where rows go: shapes (m,); positions, strands, and indices into ``REASONS``."""

    position_bp: np.ndarray
    minus: np.ndarray
    reason: np.ndarray


def lift(target: Target, panel: Panel, chain: ChainFile) -> Target:
    """A target at the positions and strand of the panel's build, sorted.

    Parameters
    ----------
    target
        The records of one contig.
    panel
        The panel, on whose contig they must come to lie.
    chain
        From the target's build to the panel's.

    Returns
    -------
    The target; what is not lifted is among ``left_out``, by reason: on no base of the other build
    ("lift_unmapped"), on several ("lift_several"), on another contig ("lift_other_contig"), with
    the first and the last base of REF apart from each other ("lift_broken"), or an insertion or
    deletion on the other strand, whose first base is another one there ("lift_inverted_indel").
    ``facts`` has the counts.

    Raises
    ------
    InputError
        If the chain file is not from the target's build to the panel's, or lacks the contig; or if
        the target fits the panel as it is.
    """
    facts = target.facts or SourceFacts("VCF or BCF")
    contig = target.sites.contig
    if _same_mt(target, panel):
        note = "positions on MT are the same in GRCh37 and GRCh38: --chain was not applied"
        return replace(target, facts=replace(facts, warnings=(*facts.warnings, note)))
    source, refused = _source_contig(target, panel, chain)
    target = _without_symbolic(target)
    keys = target.sites.keys()
    places = _places(chain, source, keys, panel)
    kept = np.flatnonzero(places.reason == _LIFTED)
    left = np.flatnonzero(places.reason != _LIFTED).tolist()
    left_out = _lifted_left_out(target, panel, chain, source)
    left_out += [
        LeftOut(*keys[i][:1], target.sites.id[i], *keys[i][1:], REASONS[places.reason[i]])
        for i in left
    ]
    new = [
        (int(places.position_bp[i]), *(_turned(keys[i]) if places.minus[i] else keys[i])[1:])
        for i in kept.tolist()
    ]
    part = target.take(kept)
    position, ref, alt = ([key[i] for key in new] for i in range(3))
    sites = site_table(contig, position, ref, alt, list(part.sites.id))
    counts = {
        "records lifted": len(kept),
        "records lifted to the other strand": int(places.minus[kept].sum()),
    }
    lifted = replace(
        part, sites=sites, left_out=sorted(left_out, key=lambda one: one.position_bp),
        contig_length=panel.contig_length,
        facts=replace(facts, counts=facts.counts | counts, known_sites={}),
    )  # fmt: skip
    lifted = lifted.take(np.argsort(sites.position_bp, kind="stable"))
    return _checked(target, lifted, panel, refused)


def _checked(target: Target, lifted: Target, panel: Panel, refused: InputError | None) -> Target:
    """The lifted target, unless its positions say that it should not be lifted.

    ``refused`` is what the header says against it; positions that fit when lifted refute that.
    """
    fitting, before = (
        compare_positions(one, panel, 0, panel.num_sites) for one in (lifted, target)
    )
    after, least = fitting.num_ref_agree, max(_FEWEST_FITTING, 2 * before.num_ref_agree)
    told = (
        f"{before.num_ref_agree:,} of {len(target.sites):,} records fit the panel as they are, and "
        f"{after:,} when lifted by --chain"
    )
    if refused is None and before.num_ref_agree >= max(_FEWEST_FITTING, 2 * after):
        raise InputError(
            f"target {target.file} is of the panel's build by its positions: {told}",
            hint="leave out --chain",
        )
    if refused is None:
        return lifted
    if after < least:
        raise refused
    facts = lifted.facts
    assert facts is not None
    note = f"the target's header is of another build than its positions: {told}"
    return replace(lifted, facts=replace(facts, warnings=(*facts.warnings, note)))


def _without_symbolic(target: Target) -> Target:
    """A target whose symbolic alleles are left out, as END is not lifted."""
    symbolic = np.array([is_symbolic(alt) for alt in target.sites.alt], bool)
    if not symbolic.any():
        return target
    rows = target.sites.take(symbolic)
    columns = (rows.position_bp.tolist(), rows.id, rows.ref, rows.alt)
    more = [LeftOut(*cells, "symbolic") for cells in zip(*columns, strict=True)]
    return replace(target.take(~symbolic), left_out=[*target.left_out, *more])


def _turned(key: Key) -> Key:
    """A record as the other strand spells it; "." and the letters I and D stay."""
    return key if {key[1], key[2]} & {"I", "D"} else other_strand(key)


def _is_indel(ref: str, alt: str) -> bool:
    """Whether a record is an insertion or deletion, in bases or as I and D."""
    return bool({ref, alt} & {"I", "D"}) or (len(ref) != len(alt) and alt != ".")


def _same_mt(target: Target, panel: Panel) -> bool:
    """Whether target and panel are of the one sequence of MT that GRCh37 and GRCh38 share."""
    if sex_chromosome(panel) != "MT" or panel.contig_length not in (None, _RCRS):
        return False
    return target.contig_length == _RCRS or target_build(target) in ("GRCh37", "GRCh38")


def _source_contig(target: Target, panel: Panel, chain: ChainFile) -> tuple[str, InputError | None]:
    """The name that the chain file has for the target's contig; both ends of it are checked.

    With it comes what the target's header says against the chain file, which its positions may
    refute.
    """
    contig = target.sites.contig
    length = None if target.file is None else target.file.declared.get(contig)
    built, wanted = target_build(target), panel_build(panel)
    refused = None
    by_positions = positions_build(target)
    if built and built == wanted:
        by = f"where {by_positions.num_agree} well-known sites are"
        refused = InputError(
            f"target {target.file} is of {built} by "
            f"{by if by_positions.build else 'its header'}, as the panel is",
            hint="leave out --chain",
        )
    source = same_contig(
        contig, chain.source_sizes, declared=chain.source_sizes, wanted_of={contig: length}
    )
    other = same_contig(
        panel.contig, chain.other_sizes, declared=chain.other_sizes,
        wanted_of={panel.contig: panel.contig_length},
    )  # fmt: skip
    if source is None or other is None:
        raise InputError(
            f"chain file {chain.path} has no chain "
            + (f"from contig {contig}" if source is None else f"to contig {panel.contig}"),
            hint="give a chain file from the target's build to the panel's",
        )
    for verb, name, told, found in (
        ("from", "the target", length, chain.source_sizes[source]),
        ("to", "the panel", panel.contig_length, chain.other_sizes[other]),
    ):
        if told is not None and told != found:
            error = InputError(
                f"chain file {chain.path} does not lift {verb} the build of {name}: its contig "
                f"{panel.contig} has {_length(contig, found)}, that of {name} "
                f"{_length(contig, told)}",
                hint=lift_hint(built, wanted),
            )
            if verb == "to":
                raise error
            refused = refused or error
    return source, refused


def _length(contig: str, length: int) -> str:
    """A contig's length as text, and the build that it tells."""
    build = human_build(contig, length)
    return f"{length:,} bp" + (f" ({build})" if build else "")


def _places(chain: ChainFile, source: str, keys: list[Key], panel: Panel) -> _Places:
    """Where records go, by the first and the last base of their REF."""
    first = np.array([key[0] for key in keys], np.int64)
    width = np.array([len(key[1]) for key in keys], np.int64)
    start = chain.lift(source, first)
    position, minus = start.position_bp.copy(), start.minus.copy()
    names = start.contigs
    here = np.array(
        [same_contig(name, [panel.contig], declared={panel.contig: panel.contig_length},
                     wanted_of=chain.other_sizes) is not None for name in names], bool,
    )  # fmt: skip
    reason = np.full(len(keys), _LIFTED)
    on = np.append(here, False)[start.contig]
    reason[~on] = _OTHER_CONTIG
    reason[start.num_places > 1] = _SEVERAL
    reason[start.num_places == 0] = _UNMAPPED
    long = np.flatnonzero(width > 1)
    end = chain.lift(source, first[long] + width[long] - 1)
    whole = (end.contig == start.contig[long]) & (end.minus == start.minus[long])
    whole &= np.abs(end.position_bp - start.position_bp[long]) == width[long] - 1
    broken = long[~whole & (reason[long] == _LIFTED)]
    reason[broken] = _BROKEN
    position[long] = np.minimum(end.position_bp, start.position_bp[long])
    indel = np.array([_is_indel(ref, alt) for _, ref, alt in keys], bool)
    reason[indel & minus & (reason == _LIFTED)] = _INVERTED_INDEL
    return _Places(position, minus, reason)


def _lifted_left_out(target: Target, panel: Panel, chain: ChainFile, source: str) -> list[LeftOut]:
    """Alleles that gave no row, at the place of their first base, where there is one."""
    keys = [(one.position_bp, "N", ".") for one in target.left_out]
    if not keys:
        return []
    places = _places(chain, source, keys, panel)
    return [
        replace(one, position_bp=int(position)) if reason == _LIFTED else one
        for one, position, reason in zip(
            target.left_out, places.position_bp.tolist(), places.reason.tolist(), strict=True
        )
    ]
