"""A release gets its number, its section of the changelog, its citation and its recipe."""

from __future__ import annotations

import hashlib
import re
import shutil

import pytest
import release
import set_version
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_packaging import ROOT, rendered

from ragimpute import __version__

URL = "https://example.org/owner/ragimpute"
HEAD = "# Changelog\n\nThe form is that of Keep a Changelog.\n\n"
ENTRIES = st.lists(st.sampled_from(["- One.", "- Two\n  lines.", "### Added"]), min_size=1)


@pytest.fixture
def checkout(tmp_path):
    """The files of the checkout that a release changes."""
    for path in [*set_version.PLACES, release.CHANGELOG, release.CITATION]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


def test_prepare_gives_the_entries_to_the_release(checkout):
    (entries,) = (
        s.text for s in release.sections((checkout / release.CHANGELOG).read_text())
        if s.name == "Unreleased"
    )  # fmt: skip
    changed = release.prepare("9.2.0", "2031-02-03", URL, checkout)
    assert {*changed} == {*set_version.PLACES, release.CHANGELOG, release.CITATION}
    text = (checkout / release.CHANGELOG).read_text()
    assert "\n## [Unreleased]\n\n## [9.2.0] - 2031-02-03\n\n### Added\n" in text
    assert text.endswith(
        f"[Unreleased]: {URL}/compare/v9.2.0...HEAD\n[9.2.0]: {URL}/releases/tag/v9.2.0\n"
    )
    assert release.notes("v9.2.0", checkout) == entries + "\n"
    citation = yaml.safe_load((checkout / release.CITATION).read_text())
    assert (citation["version"], citation["date-released"]) == ("9.2.0", "2031-02-03")
    # The next one: nothing to release yet; then with an entry, and without an address.
    with pytest.raises(ValueError, match="there is nothing to release"):
        release.prepare("9.3.0", "2031-03-03", None, checkout)
    text = text.replace("## [Unreleased]\n", "## [Unreleased]\n\n- New.\n")
    (checkout / release.CHANGELOG).write_text(text)
    with pytest.raises(ValueError, match=r"is before the release of 9\.2\.0"):
        release.prepare("9.3.0", "2031-02-02", None, checkout)
    release.prepare("9.3.0", "2031-03-03", None, checkout)
    text = (checkout / release.CHANGELOG).read_text()
    assert f"[9.3.0]: {URL}/compare/v9.2.0...v9.3.0\n[9.2.0]: {URL}/releases/" in text
    assert release.notes("v9.3.0", checkout) == "- New.\n"
    citation = yaml.safe_load((checkout / release.CITATION).read_text())
    assert citation["date-released"] == "2031-03-03"
    with pytest.raises(ValueError, match=r"the tag is v9.2.0, but the package is of version 9.3.0"):
        release.notes("v9.2.0", checkout)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("1.0", "2031-01-01", None), "add --url"),
        (("v1.0", "2031-01-01", URL), "is no release number"),
        (("1.0", "1 May", URL), "is no date"),
        (("1.0", "2031-02-30", URL), "day"),
    ],
)
def test_what_cannot_be_released_changes_nothing(checkout, words, message):
    before = {path: path.read_text() for path in checkout.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message):
        release.prepare(*words, checkout)
    assert {path: path.read_text() for path in before} == before


def test_a_tag_needs_a_section_with_a_date(checkout):
    with pytest.raises(ValueError, match=f"run release.py prepare {__version__}"):
        release.notes(f"v{__version__}", checkout)


@given(releases=st.lists(ENTRIES, min_size=1, max_size=5))
def test_no_entry_is_lost_however_many_releases_there_are(releases):
    text = HEAD + "## Unreleased\n"
    for number, entries in enumerate(releases):
        head = next(re.finditer(r"^## .*\n", text, re.M))
        text = text[: head.end()] + "\n" + "\n".join(entries) + "\n" + text[head.end() :]
        text = release.release_changelog(text, f"1.{number}", f"2031-01-{number + 1:02}", URL)
    found = release.sections(text)
    assert text.startswith(HEAD)
    numbers = [f"1.{number}" for number in reversed(range(len(releases)))]
    assert [s.name for s in found] == ["Unreleased", *numbers]
    assert [s.text for s in found] == ["", *("\n".join(entries) for entries in releases[::-1])]
    links = re.findall(r"^\[(.*)\]: ", text, re.M)
    assert links == [s.name for s in found]


def test_recipe_of_a_release_builds_from_the_published_archive(tmp_path, capsys):
    archive = tmp_path / "ragimpute-0.2.0.tar.gz"
    archive.write_bytes(b"made for this test")
    words = ["recipe", str(archive), "--source-url", f"{URL}/{archive.name}", "--home", URL,
             "--maintainer", "somebody", "-o", str(tmp_path / "recipe")]  # fmt: skip
    assert release.main(words) == 0
    path = tmp_path / "recipe" / "meta.yaml"
    assert capsys.readouterr().out == f"{path}\n"
    text = path.read_text()
    assert "if source_url" not in text
    made, before = rendered(text), rendered((ROOT / release.RECIPE).read_text())
    sha256 = hashlib.sha256(b"made for this test").hexdigest()
    assert made["source"] == {"url": f"{URL}/{archive.name}", "sha256": sha256}
    assert made["about"]["home"] == made["about"]["dev_url"] == URL
    assert made["extra"]["recipe-maintainers"] == ["somebody"]
    # All else is as it is in the checkout.
    for tree in (made, before):
        del tree["source"], tree["extra"], tree["about"]["home"], tree["about"]["dev_url"]
    assert made == before


def test_a_missing_archive_is_one_line(tmp_path, capsys):
    words = ["recipe", str(tmp_path / "no.tar.gz"), "--source-url", URL, "--home", URL,
             "--maintainer", "x", "-o", str(tmp_path / "recipe")]  # fmt: skip
    assert release.main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ")
    assert not (tmp_path / "recipe").exists()


def test_citation_has_what_the_format_asks_for():
    """cffconvert --validate says the same; it is no dependency."""
    citation = yaml.safe_load((ROOT / release.CITATION).read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == __version__
    assert citation["license"] == "MIT"
    assert citation["authors"]
