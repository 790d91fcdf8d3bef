"""The script that makes the panels of the shipped weights, on made-up files, and its table."""

from __future__ import annotations

import gzip
import re
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import replace

import fetch_training_data as fetch
import numpy as np
import pytest

from ragimpute.io.vcf.read.genotypes import PanelStream
from ragimpute.preparation.genetic_map import GeneticMap

# Two samples; site 30 ends the first block and begins the second.
M3VCF = """\
##fileformat=M3VCF
#CHROM POS ID REF ALT QUAL FILTER INFO FORMAT A_1_HAP_1 A_1_HAP_2 B_HAP_1 B_HAP_2
20 10-30 <BLOCK:0-2> . . . . B1;VARIANTS=3;REPS=3 . 0 2 1 0
20 10 rs1 A C . . B1.M1 010
20 20 rs2 G GT . . B1.M2 001
20 30 rs3 T G . . B1.M3 110
20 30-40 <BLOCK:2-3> . . . . B2;VARIANTS=2;REPS=2 . 1 0 1 1
20 30 rs3 T G . . B2.M1 01
20 40 rs4 C <DEL> . . B2.M2 10
""".replace(" ", "\t")
HAPLOTYPES = {10: [0, 0, 1, 0], 20: [0, 1, 0, 0], 30: [1, 0, 1, 1], 40: [0, 1, 0, 0]}
VCF = """\
##fileformat=VCFv4.1
#CHROM POS ID REF ALT QUAL FILTER INFO FORMAT A B
20 10 . A C . . . GT 0|1 0|0
20 10 . A C . . . GT 0|0 0|1
20 20 . A C,G . . . GT 1|2 0|1
20 30 . A C . . . GT 0/1 0|0
20 40 . A C . . . GT .|. 0|1
20 50 . A C . . . GT 1|1 1|1
20 60 . A * . . . GT 0|1 0|0
20 70 . A C . . . GT 1 0|0
20 80 . A C . . . GT 0|1 0|0
""".replace(" ", "\t")
MAP = "pos\tchr\tcM\n1\t20\t0.1\n15\t20\t0.2\n25\t20\t0.4\n50\t20\t0.5\n90\t20\t0.9\n"


def lines_of(text):
    return iter(text.splitlines(keepends=True))


def test_m3vcf_is_read_block_by_block():
    samples, records = fetch.read_m3vcf(lines_of(M3VCF))
    records = list(records)
    assert samples == ["A_1", "B"]
    assert [record[:5] for record in records] == [
        ("20", 10, "rs1", "A", "C"), ("20", 20, "rs2", "G", "GT"),
        ("20", 30, "rs3", "T", "G"), ("20", 40, "rs4", "C", "<DEL>"),
    ]  # fmt: skip
    for record in records:
        assert record.haplotypes.shape == (2, 2)
        assert record.haplotypes.ravel().tolist() == HAPLOTYPES[record.position_bp]


def test_vcf_is_split_by_alt_and_other_records_are_counted():
    samples, records = fetch.read_vcf(lines_of(VCF))
    dropped = Counter()
    kept = list(fetch.kept_records(records, "20:5-75", dropped))
    assert samples == ["A", "B"]
    assert [(r.position_bp, r.alt, alleles.ravel().tolist()) for r, alleles in kept] == [
        (10, "C", [False, True, False, False]),
        (20, "C", [True, False, False, True]),
        (20, "G", [False, True, False, False]),
    ]
    assert dropped == {
        "a second record": 1, "missing or not phased": 3, "one allele only": 1,
        "no sequence as ALT": 1, "outside the region": 1,
    }  # fmt: skip


def test_other_contigs_are_left_out():
    dropped = Counter()
    record = fetch.Record("21", 10, ".", "A", "C", np.array([[True, False]]))
    assert list(fetch.kept_records([record], "20:5-75", dropped)) == []
    assert dropped == {"outside the region": 1}


def test_table_of_genotypes_keeps_the_order_of_alleles():
    text = "#CHROM\tPOS\tREF\tALT\tA\tB\n1\t7\tA\tG\t0/1\t1/0\n1\t8\tC\tT\t./.\t1/0\n"
    samples, records = fetch.read_table_of_genotypes(lines_of(text))
    first, second = records
    assert samples == ["A", "B"]
    assert first[:5] == ("1", 7, ".", "A", "G")
    assert first.haplotypes.tolist() == [[False, True], [True, False]]
    assert second.haplotypes is None


def test_blob_is_gits():
    """What ``git hash-object`` prints of the same content."""
    assert fetch.git_blob(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert fetch.git_blob(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


@pytest.fixture
def mirror(tmp_path):
    """A folder with a made-up M3VCF under its own name, and a map under its blob."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "made up.m3vcf.gz").write_bytes(gzip.compress(M3VCF.encode(), mtime=0))
    packed = gzip.compress(MAP.encode(), mtime=0)
    (folder / fetch.git_blob(packed)).write_bytes(packed)
    return folder


@pytest.fixture
def source(mirror):
    """The row of that file."""
    file = mirror / "made up.m3vcf.gz"
    (map_file,) = set(mirror.iterdir()) - {file}
    return replace(
        fetch.read_table()[0], name="made_up", region="20:5-35", samples=2, sites=3, path=file.name,
        git_blob=fetch.git_blob(file.read_bytes()), url=f"https://localhost/{file.name}",
        map_git_blob=map_file.name, map_url="https://localhost/map.gz",
    )  # fmt: skip


def test_folder_holds_the_panel_and_its_part_of_the_map(source, mirror, tmp_path, capsys):
    fetch.make_folder(source, tmp_path / "out", mirror)
    folder = tmp_path / "out" / "made_up"
    assert sorted(path.name for path in folder.iterdir()) == ["made_up.map", "panel.bcf"]
    (batch,) = PanelStream(folder / "panel.bcf")
    assert batch.sites.position_bp.tolist() == [10, 20, 30]
    assert batch.alleles.reshape(3, 4).tolist() == [HAPLOTYPES[bp] for bp in (10, 20, 30)]
    cut = GeneticMap.read(folder / "made_up.map", contig="20")
    assert cut.position_bp.tolist() == [1, 15, 25, 50]
    assert cut.map_cm.tolist() == [0.1, 0.2, 0.4, 0.5]
    assert "3 sites, 2 samples; left out: 1 outside the region" in capsys.readouterr().out


def test_other_content_is_refused(source, mirror, tmp_path):
    with pytest.raises(SystemExit, match=f"expected git blob {'0' * 40}, found {source.git_blob}"):
        fetch.make_folder(replace(source, git_blob="0" * 40), tmp_path / "out", mirror)
    with pytest.raises(SystemExit, match="3 sites of 2 samples; the table says 4 of 2"):
        fetch.make_folder(replace(source, sites=4), tmp_path / "out", mirror)
    with pytest.raises(SystemExit, match=r"none of .* is there"):
        fetch.make_folder(
            replace(source, url="https://localhost/absent"), tmp_path / "out", tmp_path
        )
    assert not list(tmp_path.glob("out/made_up/*"))


def test_download_is_checked_and_kept(monkeypatch, tmp_path):
    asked = []

    class Answer:
        """An answer with the bytes "hello"."""

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self):
            return b"hello\n"

    def answer(url, timeout):
        asked.append(url)
        if url.endswith("absent"):
            raise urllib.error.URLError("no such host")
        return Answer()

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    blob = fetch.git_blob(b"hello\n")
    for _ in range(2):
        path = fetch.get("https://localhost/hello", blob, tmp_path / "downloads")
        assert path.read_bytes() == b"hello\n"
    assert asked == ["https://localhost/hello"]
    with pytest.raises(SystemExit, match="found ce0136"):
        fetch.get("https://localhost/hello", "0" * 40, tmp_path / "downloads")
    with pytest.raises(SystemExit, match=r"no such host[^\n]*\nhint: .*--mirror"):
        fetch.get("https://localhost/absent", "1" * 40, tmp_path / "downloads")
    assert [path.name for path in (tmp_path / "downloads").iterdir()] == [blob]


def test_table_names_its_files_in_full():
    sources = fetch.read_table()
    assert len({source.name for source in sources}) == len(sources) == 7
    for source in sources:
        raw = "https://raw.githubusercontent.com"
        assert source.url == f"{raw}/{source.repository}/{source.commit}/{source.path}"
        map_url = rf"{raw}/\S+/[0-9a-f]{{40}}/\S+\.{source.build}\.gmap\.gz"
        assert re.fullmatch(map_url, source.map_url)
        for name in (source.commit, source.git_blob, source.map_git_blob):
            assert re.fullmatch("[0-9a-f]{40}", name)
        assert source.data_licence
        assert source.repository_licence
        assert source.note
    maps = {(source.map_url, source.map_git_blob) for source in sources}
    assert len(maps) == len({url for url, _ in maps}) == len({blob for _, blob in maps})


def test_no_panel_reaches_into_the_region_of_the_example():
    for source in fetch.read_table():
        contig, first, last = re.fullmatch(r"(\w+):(\d+)-(\d+)", source.region).groups()
        assert contig != "20" or int(last) < 1_000_000 or int(first) > 4_000_000
