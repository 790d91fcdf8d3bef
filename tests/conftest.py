"""What several test modules share: the packaged example as a panel and imputed, made once."""

from __future__ import annotations

import os
import sys

# As the command line has it: threads that wait must not spin where others want the processor, and
# tests run two at a time. Read when torch and what else uses OpenMP is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from programs import require_program

from ragimpute import example
from ragimpute.preparation.prepare import prepare
from ragimpute.presets import models_dir

# No test measures time: the first example of a property may compile a kernel, or wait its turn.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def foreseen_kernels():
    """Holds the list of kernels that ship to what all tests of a process have called.

    A kernel whose recorded types are not quite those of a call would be loaded at every call.
    """
    yield
    store = sys.modules.get("ragimpute.kernels.store")
    if store is None:
        return
    found = sorted(set(store.unforeseen))
    assert not found, f"'make kernels' adds these to the kernels that ship: {found}"
    for name in {entry.kernel for entry in store.foreseen()}:
        module, _, function = name.partition(":")
        kernel = getattr(sys.modules.get(module), function, None)
        stats = getattr(getattr(kernel, "__dict__", {}).get("dispatcher"), "stats", None)
        loads = max(stats.cache_hits.values(), default=0) if stats is not None else 0
        assert loads <= 1, f"{name} was loaded {loads} times for one signature"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Look for the programs that a test names."""
    for mark in item.iter_markers("needs_program"):
        require_program(*mark.args)


@pytest.fixture(scope="session")
def panel_h5(tmp_path_factory):
    """The example's panel, prepared with its map."""
    out = tmp_path_factory.mktemp("example") / "panel.h5"
    prepare(example.path("panel.bcf"), out, genetic_map=example.path("chr20.b37.gmap.gz"))
    return out


@pytest.fixture(scope="session")
def plain_copying(tmp_path_factory):
    """The default preset without its weights, as a model folder: Li-Stephens copying."""
    folder = tmp_path_factory.mktemp("plain")
    config = (models_dir() / "default" / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config)
    return folder


@pytest.fixture(scope="session")
def imputed_example(panel_h5):
    """The example's target imputed as a user would, with every field: path and summary."""
    from ragimpute.imputation.impute import impute  # imports torch

    out = panel_h5.with_name("imputed.vcf.gz")
    fields = ("GT", "DS", "GP", "HDS", "AP")
    return out, impute(example.path("target.vcf.gz"), panel_h5, out, fields=fields)


@pytest.fixture
def command_line(monkeypatch, capfdbinary):
    """Runs ``ragimpute`` with arguments, in this process: (exit code, stdout, stderr)."""
    import logging
    import signal

    from ragimpute.cli import main as cli

    monkeypatch.setenv("COLUMNS", "160")
    before = {number: signal.getsignal(number) for number in signal.Signals}

    def run(*words):
        logging.getLogger("ragimpute").handlers.clear()  # the last one wrote to another stderr
        monkeypatch.setattr(sys, "argv", ["ragimpute", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfdbinary.readouterr()
        return end.value.code or 0, out.decode(), err.decode()

    yield run
    for number, handler in before.items():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, handler)
    logger = logging.getLogger("ragimpute")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def make_vcf(tmp_path):
    """Writes a VCF of rows, as ``vcf_fixtures.vcf_text`` takes them, and gives its path."""
    from vcf_fixtures import vcf_text

    def make(rows, *args, name="x.vcf", **options):
        path = tmp_path / name
        path.write_text(vcf_text(rows, *args, **options))
        return path

    return make
