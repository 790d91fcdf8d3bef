"""Hypothesis strategies for VCFs that are valid, but unlike what tools write."""

from __future__ import annotations

from hypothesis import strategies as st

_META = [
    '##source="a, b=c"', "##reference=ftp://x/y.fa",
    "##META=<ID=Assay,Type=String,Number=.,Values=[W,E]>",
    "##SAMPLE=<ID=a,Assay=W>", "##PEDIGREE=<ID=a,Mother=b>", "##pedigreeDB=http://x",
    '##FILTER=<ID=q10,Description="Below \\"10\\", often">', '##ALT=<ID=DEL,Description="">',
    '##INFO=<ID=NS,Number=1,Type=Integer,Description="",Source="x",Version="1">',
    "##x=<y>", "##naïve=é",
]  # fmt: skip
_NAMES = st.text(
    st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp"), blacklist_characters="\t\n\r"),
    min_size=1, max_size=12,
).filter(lambda name: name.strip() == name and name.isprintable())  # fmt: skip
_IDS = st.sampled_from([".", "rs1", "rs1;rs2", "20:1:A:T", "x" * 300, "<id>"])
_QUALITY = st.sampled_from([".", "0", "99.9", "1e5", "3000000000"])
_FILTERS = st.sampled_from([".", "PASS", "q10", "q10;s50"])
_INFOS = st.sampled_from([".", "DB", "AF=0.5", "NS=3;DB;X=a,b", "END=2000100", "AC=.", "Y=%3B%3D"])
_ONE = st.sampled_from(["0", "1", "."])
_CALLS = st.one_of(
    st.tuples(_ONE, st.sampled_from(["|", "/"]), _ONE).map("".join),
    st.tuples(_ONE, st.sampled_from(["|", "/"]), _ONE).map("".join),
    _ONE,
)
# For FORMAT, what follows GT in a sample's cell; trailing fields may be left out.
_FIELDS = st.sampled_from(
    [("GT", [""]), ("GT:DP", ["", ":3", ":."]), ("GT:PL", [":0,30,255", ":.", ""]),
     ("GT:DS:AD", ["", ":0.3", ":.:1,2"]), ("GT:FT", [":PASS", ":q10;s50"])]
)  # fmt: skip
_OTHER_ALLELES = st.sampled_from(
    [("A", "<DEL>"), ("A", "*"), ("A", "<*>"), ("A", "."), ("N", "T"), ("A", "A[21:5["), ("a", "t"),
     ("ACGT", "A,AC"), ("A", "C,<DEL>"), ("A", "C,*"), ("R", "G"), ("A", "C,G,T"), ("AT" * 90, "A")]
)  # fmt: skip


@st.composite
def strange_vcfs(draw, keys, *, least=40):
    """A VCF's text.

    Parameters
    ----------
    keys
        Sites of a panel on contig 20, (position, ref, alt), in order: at least ``least`` of them
        are in the file, so that it can be imputed, with others of any alleles among them.
    """
    samples = draw(st.lists(_NAMES, min_size=1, max_size=3, unique=True))
    chosen = sorted(
        draw(st.sets(st.integers(0, len(keys) - 1), min_size=least, max_size=least + 9))
    )
    rows = [keys[i] for i in chosen]
    for at in draw(st.lists(st.integers(0, len(rows) - 1), max_size=6)):
        position = rows[at][0]
        kind = draw(st.integers(0, 2))
        rows.append(rows[at] if kind == 0 else (position + kind - 1, *draw(_OTHER_ALLELES)))
    rows.sort(key=lambda row: row[0])
    lines = [f"##fileformat=VCFv4.{draw(st.integers(1, 4))}"]
    lines += draw(st.lists(st.sampled_from(_META), max_size=4, unique=True))
    contig = draw(st.sampled_from(["", ",length=63025520", ',length=63025520,assembly="b 37"']))
    lines.append(f"##contig=<ID=20{contig}>")
    lines.append('##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype, as ""called""">')
    fixed = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT")
    lines.append("\t".join([*fixed, *samples]))
    for position, ref, alt in rows:
        form, tails = draw(_FIELDS)
        cells = [draw(_CALLS) + draw(st.sampled_from(tails)) for _ in samples]
        if alt == ".":
            cells = [cell.replace("1", "0", 1) if cell[:3].count("1") else cell for cell in cells]
            cells = [cell[:3].replace("1", "0") + cell[3:] for cell in cells]
        fields = [draw(part) for part in (_IDS, _QUALITY, _FILTERS, _INFOS)]
        lines.append(
            "\t".join(["20", str(position), fields[0], ref, alt, *fields[1:], form, *cells])
        )
    return "\n".join(lines) + draw(st.sampled_from(["\n", "\n", ""]))
