"""Lists of samples: a name is a whole line, whatever characters it holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from vcf_fixtures import convert, read_imputed, vcf_text, write_genotypes

from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import VcfFile, read_target
from ragimpute.jobs.split import Plan, plan_batches, write_batches
from ragimpute.preparation.populations import read_populations
from ragimpute.preparation.prepare import prepare
from ragimpute.target.inputs import chosen_samples

CALLS = ("0|0", "0|1", "1|0", "1|1", ".|.")
# What a name may hold, and what has been cut at: blanks of several kinds, commas, quotes, signs.
NAMES = st.lists(
    st.text("P1 ,\"'^-:#\u00e9\u00a0\u2028\x0b\x85", min_size=1, max_size=6).filter(
        lambda name: name.strip(" \x0b")  # htslib refuses a name that is all blank
    ),
    min_size=1, max_size=5, unique=True,
)  # fmt: skip


def target_of(tmp_path, samples):
    """A VCF whose genotype tells the sample, at one site each."""
    rows = [
        (10 * (site + 1), "A", "G", *(CALLS[(i + site) % 5] for i in range(len(samples))))
        for site in range(3)
    ]
    path = tmp_path / "t.vcf"
    path.write_text(vcf_text(rows, samples))
    return path


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES, st.integers(1, 3), st.booleans())
@example(["P1", "P1 rep", " P1", "P1 "], 1, True)
@example(["a,b", "a", "b", "^a", "-"], 1, False)
def test_the_lists_that_plan_writes_come_back(tmp_path, samples, size, binary):
    path = target_of(tmp_path, samples)
    if binary:
        path = convert(path, ".bcf", index=False)
    whole = read_target(path)
    assert whole.samples == samples
    batches = plan_batches(samples, size)
    write_batches(Plan("p.h5", "0", [], batches), tmp_path / "batches", force=True)
    read = []
    for number, batch in enumerate(batches, start=1):
        file = VcfFile(path)
        found = chosen_samples(file, tmp_path / "batches" / f"{number}.txt", None)
        assert found == batch
        part = read_target(file, samples=found)
        assert part.samples == batch
        columns = [samples.index(name) for name in batch]
        assert (part.alleles == whole.alleles[:, columns]).all()
        read += batch
        if len(samples) > len(batch):
            left = chosen_samples(file, None, tmp_path / "batches" / f"{number}.txt")
            assert left == [name for name in samples if name not in batch]
    assert read == samples


def test_phase_sets_are_those_of_the_chosen_samples(tmp_path):
    samples = ["a,b", "b", "c"]
    rows = [(10, "A", "G", "0|1:5", "0|1:6", "0|1:7"), (20, "A", "G", "0|1:5", "0|1:6", "0|1:5")]
    text = vcf_text(rows, samples, keys="GT:PS")
    path = tmp_path / "t.vcf"
    path.write_text(text)
    target = read_target(path, samples=["a,b", "c"])
    assert target.phase_set is not None
    (five, seven), (again, other) = target.phase_set.tolist()
    assert five == again == other
    assert seven not in (-1, five)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("P1 rep\n", ["P1 rep"]),
        ("P1 rep\r\n", ["P1 rep"]),
        ("P1\n", ["P1"]),
        ("P1\tCEU\tmale\nP2\tYRI\n", ["P1", "P2"]),
        ("  P2  \n\n", ["P2"]),
        ("\ufeffP2", ["P2"]),
        ("P1 rep\tCEU\n", ["P1 rep"]),
        (" P3\n", [" P3"]),
    ],
)
def test_lines_of_a_list(tmp_path, text, found):
    path = target_of(tmp_path, ["P1", "P1 rep", "P2", " P3"])
    (tmp_path / "list.txt").write_bytes(text.encode())
    assert chosen_samples(VcfFile(path), tmp_path / "list.txt", None) == found


def test_a_name_is_not_cut_at_its_blank(tmp_path):
    path = target_of(tmp_path, ["P1", "P2"])
    (tmp_path / "list.txt").write_text("P1 rep\nP2\n")
    with pytest.raises(InputError, match=r"lacks 1 samples of the list .*: P1 rep") as caught:
        chosen_samples(VcfFile(path), tmp_path / "list.txt", None)
    assert caught.value.hint == (
        "'P1 rep' is not 'P1': a line is one name, blanks and all; other columns come after a tab"
    )


def test_populations_of_names_with_blanks(tmp_path):
    path = tmp_path / "populations.txt"
    samples = ["P1", "P1 rep", " P2", 'a"b']
    path.write_text('sample\tpop\nP1\tCEU\nP1 rep\tYRI\n P2\tCEU\r\na"b\tGBR\n')
    assert list(read_populations(path, samples).items()) == [
        ("P1", "CEU"), ("P1 rep", "YRI"), (" P2", "CEU"), ('a"b', "GBR"),
    ]  # fmt: skip
    path.write_text("P1 CEU\nP1 rep YRI\n")
    with pytest.raises(InputError, match="so has the name of panel sample 'P1 rep'") as caught:
        read_populations(path, samples)
    assert caught.value.hint == "put tabs between the columns"


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_impute_takes_the_people_whose_names_have_blanks(command_line, tmp_path, suffix):
    samples = ["P1", "P1 rep", " P1", "P 2", "P2"]
    keys = [(100 * i, "A", "C") for i in range(1, 31)]
    rng = np.random.default_rng(3)
    alleles = rng.integers(0, 2, (30, 20, 2))
    source = write_genotypes(tmp_path / "p.vcf", keys, alleles, [f"h{i}" for i in range(20)])
    panel = tmp_path / "p.h5"
    prepare(source, panel, cm_per_mb=1.0)
    typed = alleles[::2, :5]
    target = write_genotypes(tmp_path / "t.vcf", keys[::2], typed, samples)
    if suffix != ".vcf":
        target = convert(target, suffix, index=False)
    chosen = tmp_path / "list.txt"
    chosen.write_text("P1 rep\nP 2\tCEU\n")
    words = [str(target), "-p", str(panel), "-o", str(tmp_path / "o.vcf"), "--no-fine-tune"]
    for option, wanted in (("--samples-file", [1, 3]), ("--exclude-samples", [0, 2, 4])):
        (tmp_path / "o.vcf").unlink(missing_ok=True)
        code, _, err = command_line("impute", *words, option, str(chosen))
        assert code == 0, err
        found = read_imputed(tmp_path / "o.vcf")
        assert found.samples == [samples[i] for i in wanted]
        np.testing.assert_array_equal(found.genotypes[::2], typed[:, wanted])
