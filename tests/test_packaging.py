"""The wheel holds what runs need and installs; the recipe says the same as the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import jinja2
import pytest
import set_version
import yaml
from programs import MAY_NOT_SKIP

from ragimpute import __version__
from ragimpute.extras import EXTRAS
from ragimpute.kernels.store import MADE_BY, Named, find_kernel, folder_name, foreseen
from ragimpute.presets import preset_names

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "packaging" / "conda" / "meta.yaml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pip(*arguments, **environment):
    """Run pip without a network."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments],
        capture_output=True, text=True, check=False,
        env=os.environ | {"PIP_NO_INDEX": "1"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, with the kernels of this machine's level."""
    folder = tmp_path_factory.mktemp("wheel")
    pip(
        "wheel", "--no-build-isolation", "--no-deps", "-w", str(folder), str(ROOT),
        RAGIMPUTE_KERNEL_LEVELS="native",
    )  # fmt: skip
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that the wheel is installed into, apart from this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--target", str(folder), str(wheel))
    return folder


def run(installed, *command):
    """Run Python with the installed wheel, in a folder that is not the checkout."""
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, cwd=installed,
        env=os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "100"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def data_files(folder):
    """Files below a folder of the checkout, with their sizes, that belong into a wheel."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
        and not {"__pycache__", "compiled"} & set(path.parts)
        and not path.name.startswith(".")
    }


def test_wheel_is_complete(wheel):
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}-none-"
    assert wheel.name.startswith(f"ragimpute-{__version__}-{tag}")
    assert not wheel.name.endswith("-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {item.filename: item.file_size for item in archive.infolist()}
    expected = {f"ragimpute/{name}": n for name, n in data_files(ROOT / "ragimpute").items()}
    models = data_files(ROOT / "models")
    assert "default/config.yaml" in models
    expected |= {f"ragimpute/models/{name}": n for name, n in models.items()}
    folder = f"ragimpute/compiled/{folder_name()}/"
    kernels = {name.removeprefix(folder) for name in held if name.startswith("ragimpute/compiled/")}
    assert kernels == {
        MADE_BY,
        *(Named.of(find_kernel(x.kernel).py_func, x.signature).file_name() for x in foreseen()),
    }
    held = {name: n for name, n in held.items() if not name.startswith("ragimpute/compiled/")}
    assert {name: n for name, n in held.items() if name.startswith("ragimpute/")} == expected
    for name in (
        "example/panel.bcf",
        "reports/templates/page.html.j2",
        "models/default/config.yaml",
    ):
        assert f"ragimpute/{name}" in held
    others = {name.split("/")[0] for name in held} - {"ragimpute"}
    assert others == {f"ragimpute-{__version__}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in held)


def test_installed_wheel_works(installed):
    assert f"ragimpute {__version__}" in run(installed, "-m", "ragimpute", "--version")
    assert "prepare" in run(installed, str(installed / "bin" / "ragimpute"), "--help")
    code = (
        "import ragimpute.config as c, ragimpute.example as e;"
        "print(c.__file__); print(c.models_dir()); print(e.path('panel.bcf'));"
        "print(*c.preset_names()); [c.load_config(n) for n in c.preset_names()]"
    )
    module, models, panel, presets = run(installed, "-c", code).splitlines()
    for path in (module, models, panel):
        assert Path(path).is_relative_to(installed)
    assert presets.split() == preset_names()


def test_installed_wheel_prepares_its_own_example(installed, tmp_path):
    code = (
        "from ragimpute import example; from ragimpute.preparation.prepare import prepare;"
        "done = prepare(example.path('panel.bcf'), 'own.h5', cm_per_mb=1.0);"
        "print(done.panel.num_sites)"
    )
    assert run(installed, "-c", code).split() == ["6127"]


READ_ONLY = """
set -e
mount --bind "$1" "$1"
mount -o remount,ro,bind /
cd "$1"
shift
exec env -i PATH="$PATH" HOME=/proc/none TMPDIR="$PWD" PYTHONPATH="$PYTHONPATH" "$@"
"""


def test_installed_wheel_runs_where_nothing_can_be_written(installed, tmp_path):
    """All but the folder of the output is mounted read-only, and there is no home folder."""
    files = [str(installed / "ragimpute" / "example" / name) for name in
             ("target.vcf.gz", "panel.bcf", "chr20.b37.gmap.gz")]  # fmt: skip
    target, panel, genetic_map = files
    here = tmp_path / "here"
    here.mkdir()
    words = ["impute", target, "--panel", panel, "--map", genetic_map, "--quiet", "--report",
             str(here / "run.html")]  # fmt: skip
    apart = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-r", "--mount"]
    done = subprocess.run(
        [*apart, "sh", "-c", READ_ONLY, "sh", str(here), sys.executable, "-m", "ragimpute", *words,
         "-o", "out.vcf.gz"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(installed)},
    )  # fmt: skip
    if done.returncode and "unshare" in done.stderr:
        refuse = pytest.fail if os.environ.get(MAY_NOT_SKIP) == "1" else pytest.skip
        refuse("this user may not make a mount namespace (unshare --mount)")
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()  # and none of kernels or of folders that cannot be written
    assert line.startswith("WARNING: panel ")
    assert "<svg" in (here / "run.html").read_text()
    run(installed, "-m", "ragimpute", *words, "-o", str(tmp_path / "usual.vcf.gz"))
    assert (here / "out.vcf.gz").read_bytes() == (tmp_path / "usual.vcf.gz").read_bytes()


def requirement_names(lines):
    """Names of requirements, as conda and PyPI both spell them."""
    return {re.split(r"[\s<>=!~;\[]", line.strip())[0].lower() for line in lines}


def requirements_of(extra):
    """The lines that an extra stands for, by way of other extras too."""
    lines = []
    for line in PROJECT["optional-dependencies"][extra]:
        others = re.match(r"ragimpute\[(.*)\]", line)
        more = (
            [x for other in others[1].split(",") for x in requirements_of(other)] if others else []
        )
        lines += more or [line]
    return lines


def rendered(text):
    """A recipe as conda renders it, without any variable of the environment."""
    template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(text)

    def pin(name, max_pin):
        return f"{name} {max_pin}"

    return yaml.safe_load(template.render(PYTHON="python", pin_subpackage=pin, pin_compatible=pin))


@pytest.fixture
def recipe():
    """The recipe as it stands in the checkout."""
    return rendered(RECIPE.read_text())


def test_recipe_agrees_with_the_project(recipe):
    assert recipe["package"] == {"name": PROJECT["name"], "version": __version__}
    (entry,) = recipe["build"]["entry_points"]
    assert dict([entry.split(" = ")]) == PROJECT["scripts"]
    assert "noarch" not in recipe["build"]  # it holds machine code
    assert "[py < 311]" in RECIPE.read_text()
    assert PROJECT["requires-python"] == ">=3.11"
    assert recipe["about"]["license"] == PROJECT["license"]
    # Where conda's name differs from PyPI's.
    conda = {"torch": "pytorch", "matplotlib": "matplotlib-base"}

    def as_conda(lines):
        parts = (re.match(r"([\w-]+)(.*)", line).groups() for line in lines)
        return {f"{conda.get(name, name.lower())} {minimum}" for name, minimum in parts}

    needed = as_conda(PROJECT["dependencies"])
    assert set(recipe["requirements"]["host"]) == {"python", "pip", "hatchling >=1.24", *needed}
    # Kernels serve the numba that has compiled them.
    (numba,) = (line for line in needed if line.startswith("numba "))
    pinned = {"numba x.x.x", "llvmlite x.x.x"}
    assert set(recipe["requirements"]["run"]) == {"python", *(needed - {numba}), *pinned}
    beside = as_conda(requirements_of("all"))
    assert set(recipe["requirements"]["run_constrained"]) == beside
    # What packaging/README.md says to install in the place of each extra.
    page = (ROOT / "packaging" / "README.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| `conda install (.*)` \|$", page, flags=re.MULTILINE)
    assert [extra for extra, _ in told] == list(EXTRAS)
    for extra, names in told:
        assert set(names.split()) == {x.split()[0] for x in as_conda(requirements_of(extra))}


def test_recipe_makes_up_no_hash_and_builds_from_the_checkout(recipe):
    assert recipe["source"] == {"path": "../.."}
    assert (RECIPE.parent / recipe["source"]["path"] / "pyproject.toml").is_file()
    assert not re.search(r"\b[0-9a-f]{64}\b", RECIPE.read_text())


def test_commands_that_the_recipe_tests(recipe, installed):
    for command in recipe["test"]["commands"]:
        program, *arguments = command.split()
        assert program == "ragimpute"
        assert "ragimpute" in run(installed, "-m", program, *arguments)
    for module in recipe["test"]["imports"]:
        assert find_spec(module) is not None, module


def test_libraries_that_tests_and_builds_need_are_pinned():
    pinned = requirement_names((ROOT / "constraints.txt").read_text().splitlines()[1:])
    needed = requirement_names(PROJECT["dependencies"] + requirements_of("dev"))
    assert needed <= pinned


def test_dockerfile_copies_what_is_there_and_installs_the_wheel():
    """It cannot be built without a daemon: what can be said of it by reading."""
    text = (ROOT / "packaging" / "Dockerfile").read_text()
    steps = re.findall(r"^(FROM|ARG|RUN|COPY|ENV|WORKDIR|CMD) ", text, flags=re.MULTILINE)
    assert steps.count("FROM") == 2
    copied = re.findall(r"^COPY (?!--from)(\S+) ", text, flags=re.MULTILINE)
    assert copied == [".", "constraints.txt"]
    assert all((ROOT / name).exists() for name in copied)
    assert f"docker build -t ragimpute:{__version__} " in text
    (extras,) = re.findall(r'^ARG EXTRAS="([\w,]+)"$', text, flags=re.MULTILINE)
    assert {*extras.split(","), *re.findall(r"EXTRAS=(\w+)", text)} <= {*EXTRAS, "all"}
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not {"ragimpute", "models", "pyproject.toml", "README.md", "LICENSE"} & set(ignored)


def test_every_file_states_the_version_of_the_package():
    stated = set_version.versions()
    assert all(numbers and {*numbers} == {__version__} for numbers in stated.values()), stated


def test_no_other_file_states_the_version():
    """Else a release would leave it behind; records of what a measurement used are in docs/."""
    for folder in ("packaging", "workflow", "ragimpute"):
        for path in (ROOT / folder).rglob("*"):
            here = path.relative_to(ROOT)
            if path.is_file() and here not in set_version.PLACES and "compiled" not in path.parts:
                text = path.read_bytes().decode(errors="replace")
                stated = re.findall(r"ragimpute[ :=]+v?[0-9]+\.[0-9]+\S*", text)
                stated += re.findall(r"__version__ = .*[0-9].*", text)
                assert not stated, f"{here} states {stated}"


def numbers_in(stated):
    """The different numbers that files state."""
    return {number for numbers in stated.values() for number in numbers}


@pytest.fixture
def stating(tmp_path):
    """A copy of the files that state the version."""
    for path in set_version.PLACES:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


@pytest.mark.parametrize("number", ["10.2.0", "1.0rc1", "0.2.0.post1", "2.0.dev3"])
def test_set_version_writes_every_place_and_nothing_else(stating, number):
    before = {path: (ROOT / path).read_text() for path in set_version.PLACES}
    assert set_version.set_version(number, stating) == list(set_version.PLACES)
    for path, text in before.items():
        assert (stating / path).read_text() == text.replace(__version__, number), path
    assert numbers_in(set_version.versions(stating)) == {number}
    assert set_version.set_version(number, stating) == []
    assert len(set_version.set_version(__version__, stating)) == len(before)
    assert {path: (stating / path).read_text() for path in before} == before


@pytest.mark.parametrize("number", ["", "v1.0", "1.0-beta", "1.0 ", "latest"])
def test_set_version_refuses_what_is_no_number(stating, number):
    with pytest.raises(ValueError, match="is no release number"):
        set_version.set_version(number, stating)
    assert numbers_in(set_version.versions(stating)) == {__version__}


def test_set_version_changes_nothing_where_a_place_is_lost(stating):
    last = list(set_version.PLACES)[-1]
    (stating / last).write_text("channels: []\n")
    with pytest.raises(ValueError, match="states no release number"):
        set_version.set_version("9.9.9", stating)
    del (stated := set_version.versions(stating))[last]
    assert numbers_in(stated) == {__version__}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_each_shell(shell, installed):
    """What a shell asks for when the tab key is pressed."""
    shown = subprocess.run(
        [sys.executable, "-m", "ragimpute", "--show-completion", shell], cwd=installed,
        capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(installed),
                          "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )  # fmt: skip
    assert f"_RAGIMPUTE_COMPLETE=complete_{shell}" in shown.stdout
    asked = {
        "bash": {"COMP_WORDS": "ragimpute imp", "COMP_CWORD": "1"},
        "zsh": {"_TYPER_COMPLETE_ARGS": "ragimpute imp"},
        "fish": {
            "_TYPER_COMPLETE_ARGS": "ragimpute imp",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
    }[shell]
    answer = subprocess.run(
        [sys.executable, "-m", "ragimpute"], cwd=installed, capture_output=True, text=True,
        check=False,
        env=os.environ | asked | {"PYTHONPATH": str(installed),
                                  "_RAGIMPUTE_COMPLETE": f"complete_{shell}"},
    )  # fmt: skip
    assert "impute" in answer.stdout, answer.stderr
    assert "prepare" not in answer.stdout
