"""Prepare a release: number, changelog, citation; its notes; and the conda recipe filled in.

Run: python packaging/release.py prepare 0.2.0 --url https://HOST/OWNER/ragimpute
     python packaging/release.py notes v0.2.0
     python packaging/release.py recipe ARCHIVE --source-url URL --home URL --maintainer NAME -o DIR

"prepare" turns the changelog's section Unreleased into the section of the number, with its date and
a link to the changes since the release before. "notes" prints that section for the tag, and refuses
a tag that is not the package's number: a service that runs when a tag is pushed calls it. "recipe"
writes the conda recipe of a published source archive.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import set_version

ROOT = Path(__file__).resolve().parent.parent
CHANGELOG = Path("CHANGELOG.md")
CITATION = Path("CITATION.cff")
RECIPE = Path("packaging/conda/meta.yaml")
_HEADING = re.compile(r"^## (?:\[(?P<linked>[^\]]+)\]|(?P<plain>\S+))(?: - (?P<date>\S+))?$", re.M)
_LINK = re.compile(r"^\[(?P<name>[^\]]+)\]: (?P<url>\S+)$", re.M)


@dataclass(frozen=True)
class Section:
    """A section of the changelog.

    Attributes
    ----------
    name
        "Unreleased" or a release number.
    date
        YYYY-MM-DD; None for what is not released.
    text
        What stands below the heading, without empty lines around it.
    """

    name: str
    date: str | None
    text: str


def sections(changelog: str) -> list[Section]:
    """The sections of a changelog, the newest first, as they stand there; links are left out."""
    body = _LINK.sub("", changelog)
    found = list(_HEADING.finditer(body))
    ends = [match.start() for match in found[1:]] + [len(body)]
    return [
        Section(match["linked"] or match["plain"], match["date"], body[match.end() : end].strip())
        for match, end in zip(found, ends, strict=True)
    ]


def release_changelog(changelog: str, version: str, date: str, url: str) -> str:
    """A changelog with the section Unreleased given to a release, and an empty one above it.

    Parameters
    ----------
    changelog
        The text, in the form of Keep a Changelog.
    version, date
        The release's number, and its date as YYYY-MM-DD.
    url
        Address of the repository; tags are "v" and the number.

    Raises
    ------
    ValueError
        If Unreleased is missing or empty, if the number has a section, or the date is before that
        of the newest release.
    """
    found = sections(changelog)
    names = [section.name for section in found]
    if "Unreleased" not in names[:1]:
        raise ValueError(f"the changelog begins with {names[:1]}, expected a section Unreleased")
    if version in names:
        raise ValueError(f"the changelog has a section {version} already")
    if not found[0].text:
        raise ValueError("the changelog's section Unreleased is empty: there is nothing to release")
    before = found[1] if len(found) > 1 else None
    if before is not None and before.date is not None and date < before.date:
        raise ValueError(f"{date} is before the release of {before.name}, {before.date}")
    url = url.rstrip("/").removesuffix(".git")
    links = {match["name"]: match["url"] for match in _LINK.finditer(changelog)}
    changes = f"compare/v{before.name}...v{version}" if before else f"releases/tag/v{version}"
    links = {
        "Unreleased": f"{url}/compare/v{version}...HEAD",
        version: f"{url}/{changes}",
        **{name: link for name, link in links.items() if name != "Unreleased"},
    }
    head = next(_HEADING.finditer(changelog))
    rest = _LINK.sub("", changelog[head.end() :]).strip()
    text = f"{changelog[: head.start()]}## [Unreleased]\n\n## [{version}] - {date}\n\n{rest}\n\n"
    return text + "".join(f"[{name}]: {link}\n" for name, link in links.items())


def repository_url(changelog: str, given: str | None) -> str:
    """Address of the repository: as given, or that of the changelog's links.

    Raises
    ------
    ValueError
        If there is neither.
    """
    match = re.search(r"^\[Unreleased\]: (\S+)/compare/", changelog, re.M)
    if given is None and match is None:
        raise ValueError("the changelog has no link yet; add --url with the repository's address")
    return given if given is not None else match[1]  # type: ignore[index]


def prepare(version: str, date: str, url: str | None, root: Path = ROOT) -> list[Path]:
    """Write number, changelog section and citation of a release; the files that were changed.

    Raises
    ------
    ValueError
        As :func:`release_changelog` and :func:`set_version.set_version`, or if the date is none. No
        file is changed then.
    """
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
        raise ValueError(f"{date!r} is no date; expected YYYY-MM-DD")
    datetime.date.fromisoformat(date)
    changelog = (root / CHANGELOG).read_text()
    changelog = release_changelog(changelog, version, date, repository_url(changelog, url))
    changed = set_version.set_version(version, root)
    (root / CHANGELOG).write_text(changelog)
    citation = (root / CITATION).read_text()
    citation = re.sub(r"^date-released: .*\n", "", citation, flags=re.M)
    (root / CITATION).write_text(citation.rstrip("\n") + f'\ndate-released: "{date}"\n')
    return [*dict.fromkeys([*changed, CHANGELOG, CITATION])]


def notes(tag: str, root: Path = ROOT) -> str:
    """The changelog's section of a tag.

    Raises
    ------
    ValueError
        If the tag is not "v" and the package's number, or there is no section with that number.
    """
    (stated,) = set_version.versions(root)[set_version.PACKAGE]
    if tag != f"v{stated}":
        raise ValueError(f"the tag is {tag}, but the package is of version {stated}: tag v{stated}")
    for section in sections((root / CHANGELOG).read_text()):
        if section.name == stated and section.date is not None:
            return section.text + "\n"
    raise ValueError(
        f"the changelog has no section {stated} with a date: run release.py prepare {stated}"
    )


def fill_recipe(recipe: str, *, source_url: str, sha256: str, home: str, maintainer: str) -> str:
    """The conda recipe for the public channel: it builds from the published source archive.

    Raises
    ------
    ValueError
        If the recipe has no place for one of the values.
    """
    values = {"source_url": source_url, "sha256": sha256, "home": home, "maintainer": maintainer}
    for name, value in values.items():
        line = re.compile(rf'^{{% set {name} = ".*" %}}$', re.M)
        if not line.search(recipe):
            raise ValueError(f"the recipe sets no {name}")
        recipe = line.sub(lambda _, n=name, v=value: f'{{% set {n} = "{v}" %}}', recipe)
    recipe = re.sub(r"{#.*?#}\n", "", recipe, flags=re.S)
    chosen = re.compile(r"^{% if source_url %}\n(.*?)^{% else %}\n.*?^{% endif %}\n", re.M | re.S)
    return chosen.sub(lambda match: match[1], recipe)


def _recipe(options: argparse.Namespace) -> None:
    """Write the filled-in recipe."""
    sha256 = hashlib.sha256(options.archive.read_bytes()).hexdigest()
    text = fill_recipe(
        (ROOT / RECIPE).read_text(), source_url=options.source_url, sha256=sha256,
        home=options.home, maintainer=options.maintainer,
    )  # fmt: skip
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "meta.yaml").write_text(text)
    print(options.output / "meta.yaml")


def main(words: list[str] | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="prepare a release")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("prepare", help="write number, changelog section and citation")
    one.add_argument("version", help="such as 0.2.0")
    one.add_argument("--date", default=datetime.date.today().isoformat(), help="default: today")
    one.add_argument("--url", help="address of the repository; default: that of the last release")
    one = commands.add_parser("notes", help="print the changelog's section of a tag")
    one.add_argument("tag", help="such as v0.2.0")
    one = commands.add_parser("recipe", help="write the conda recipe of a published archive")
    one.add_argument("archive", type=Path, help="the published ragimpute-VERSION.tar.gz")
    one.add_argument("--source-url", required=True, help="where it is published")
    one.add_argument("--home", required=True, help="address of the repository")
    one.add_argument("--maintainer", required=True, help="an account, without @")
    one.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    options = parser.parse_args(words)
    try:
        if options.command == "prepare":
            for path in prepare(options.version, options.date, options.url):
                print(path)
        elif options.command == "notes":
            print(notes(options.tag), end="")
        else:
            _recipe(options)
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
