"""Exhaustive search on a GPU, by a stand-in for FAISS's calls: the same as on the CPU, ties too."""

from __future__ import annotations

import logging
import multiprocessing

import faiss
import numpy as np
import pytest
from faiss_stand_in import Library, codes_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute import example
from ragimpute.config import load_config
from ragimpute.errors import InputError
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import save_model
from ragimpute.panel.reader import Panel
from ragimpute.retrieval import faiss_device
from ragimpute.retrieval.faiss_device import GpuSearcher, choose_searcher
from ragimpute.retrieval.faiss_threads import search_with_one_thread
from ragimpute.retrieval.index import WindowIndex
from ragimpute.token_model.build_index import build_index


def flat_index(codes):
    """The CPU's exhaustive index as the package makes it."""
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.use_heap = False
    index.add(codes)
    return index


def make_codes(seed, num, num_bytes, kinds):
    """Codes of which many are equal: (num, bytes), drawn from so many kinds."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (kinds, num_bytes), dtype=np.uint8)[rng.integers(0, kinds, num)]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num=st.integers(1, 400),
    kinds=st.sampled_from([1, 2, 7, 400]),
    share=st.floats(0, 1),
)
def test_ties_are_decided_as_on_the_cpu(seed, num, kinds, share):
    codes = make_codes(seed, num, 3, kinds)
    queries = np.concatenate([codes[:3], make_codes(seed + 1, 4, 3, 4), np.zeros((1, 3), np.uint8)])
    k = max(1, round(share * num))
    index, searcher = flat_index(codes), GpuSearcher(0, library=Library())
    expected_far, expected = index.search(queries, k)
    far, slots = searcher.search(index, queries, k)
    np.testing.assert_array_equal(far, expected_far)
    np.testing.assert_array_equal(slots, expected)


@pytest.mark.parametrize(("k", "kinds"), [(5, 5000), (5, 1), (2040, 5000), (2048, 40), (3000, 9)])
def test_more_than_a_gpu_can_return(k, kinds):
    """What it cannot settle, as where all are equally near, is searched on the CPU."""
    codes = make_codes(3, 5000, 4, kinds)
    queries = make_codes(4, 6, 4, 6)
    index, searcher = flat_index(codes), GpuSearcher(0, library=Library())
    expected_far, expected = index.search(queries, k)
    far, slots = searcher.search(index, queries, k)
    np.testing.assert_array_equal(far, expected_far)
    np.testing.assert_array_equal(slots, expected)


def test_the_stand_in_mixes_ties_up():
    codes = make_codes(0, 300, 2, 3)
    library = Library()
    searcher = GpuSearcher(0, library=library)
    raw = searcher._on_gpu(flat_index(codes)).search(codes[:4], 50)[1]
    assert (raw != flat_index(codes).search(codes[:4], 50)[1]).any()


def test_an_index_is_made_on_the_gpu_and_kept_on_the_cpu():
    codes = make_codes(1, 50, 6, 50)
    library = Library()
    made = GpuSearcher(0, library=library).build_flat(codes)
    assert library.GpuIndexBinaryFlat.made == 1
    assert type(made) is faiss.IndexBinaryFlat
    np.testing.assert_array_equal(codes_of(made), codes)
    assert not made.use_heap


def test_an_index_is_copied_once_and_gives_way(monkeypatch):
    library = Library()
    searcher = GpuSearcher(0, library=library)
    indexes = [flat_index(make_codes(seed, 100, 8, 100)) for seed in range(3)]
    query = make_codes(9, 1, 8, 1)
    for index in indexes * 2:
        searcher.search(index, query, 3)
    assert library.GpuIndexBinaryFlat.made == 3
    monkeypatch.setattr(faiss_device, "_MAX_CODE_BYTES", 2 * 100 * 8)
    searcher = GpuSearcher(0, library=library)
    for i in (0, 1, 0, 2, 0, 1):  # 2 takes the place of 1, and 1 that of 2
        expected = indexes[i].search(query, 3)[1]
        np.testing.assert_array_equal(searcher.search(indexes[i], query, 3)[1], expected)
    assert library.GpuIndexBinaryFlat.made == 3 + 4
    assert len(searcher._held) == 2


def test_a_gpu_that_fails_leaves_the_work_to_the_cpu(caplog):
    library = Library()
    codes = make_codes(1, 50, 6, 9)
    index, searcher = flat_index(codes), GpuSearcher(1, library=library)

    def fail(self, *args):
        raise RuntimeError("Error: 'err == cudaSuccess' failed:\n out of memory")

    library.GpuIndexBinaryFlat.search = library.GpuIndexBinaryFlat.add = fail
    with caplog.at_level(logging.WARNING, "ragimpute"):
        for _ in range(2):
            np.testing.assert_array_equal(
                searcher.search(index, codes[:3], 7)[1], index.search(codes[:3], 7)[1]
            )
        np.testing.assert_array_equal(codes_of(searcher.build_flat(codes)), codes)
    (line,) = caplog.messages
    assert line == (
        "GPU 1 failed in FAISS, and the CPU searches on: Error: 'err == cudaSuccess' failed: out "
        "of memory"
    )
    caplog.clear()
    np.testing.assert_array_equal(
        codes_of(GpuSearcher(0, library=library).build_flat(codes)), codes
    )
    assert len(caplog.messages) == 1


def test_a_forked_process_searches_on_the_cpu():
    library = Library()
    codes = make_codes(1, 50, 6, 9)
    index, searcher = flat_index(codes), GpuSearcher(0, library=library)
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()

    def child():
        search_with_one_thread()  # as workers do; others would wait for threads that are not there
        slots = searcher.search(index, codes[:3], 7)[1]
        theirs.send((slots, library.GpuIndexBinaryFlat.made))

    process = fork.Process(target=child)
    process.start()
    assert ours.poll(60), "the forked process does not answer"
    slots, made = ours.recv()
    process.join()
    np.testing.assert_array_equal(slots, index.search(codes[:3], 7)[1])
    assert made == 0


@pytest.mark.parametrize(
    ("device", "num_gpus", "number"),
    [("auto", 2, 0), ("cuda", 1, 0), ("cuda:1", 2, 1), ("auto", 0, None), ("cpu", 2, None)],
)
def test_devices_by_name(device, num_gpus, number, caplog):
    searcher = choose_searcher(device, missing="fail", library=Library(num_gpus))
    assert (None if searcher is None else searcher.number) == number
    assert not caplog.messages


class WithoutGpus:
    """A build like faiss-cpu's."""

    __version__ = "1.0"


@pytest.mark.parametrize(
    ("library", "device", "found", "hint"),
    [
        (WithoutGpus(), "cuda", "is built without its part for GPUs", "pip install faiss-gpu"),
        (Library(0), "cuda", "sees 0 CUDA devices", "use --device cpu"),
        (Library(1), "cuda:1", "sees 1 CUDA devices", "use --device cpu"),
    ],
)
def test_a_device_that_cannot_be_had(library, device, found, hint, caplog):
    with pytest.raises(InputError) as caught:
        choose_searcher(device, missing="fail", library=library)
    assert caught.value.message == f"device {device} was asked for, but faiss 1.0 {found}"
    assert hint in caught.value.hint
    assert choose_searcher(device, library=library) is None
    assert caplog.messages == [f"faiss 1.0 {found}: the index is searched on the CPU"]
    caplog.clear()
    assert choose_searcher(device, missing="ignore", library=library) is None
    assert not caplog.messages


def test_no_such_device():
    with pytest.raises(InputError, match="there is no device 'gpu'"):
        choose_searcher("gpu", library=Library())


def test_two_builds_are_told_of(monkeypatch, caplog):
    builds = ["faiss-cpu", "faiss-gpu"]
    monkeypatch.setattr(faiss_device, "installed_faiss", lambda: builds)
    choose_searcher("cpu")
    (line,) = caplog.messages
    assert line == (
        "faiss-cpu and faiss-gpu are both installed, and the last has overwritten files of the "
        "first; to repair it: pip uninstall -y faiss-cpu faiss-gpu && pip install faiss-gpu"
    )


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_window_indexes_are_the_same(panel_h5, kind, tmp_path, caplog):
    """Made and searched on a GPU: the same files, and the same haplotypes in the same order."""
    library = Library()
    searcher = GpuSearcher(0, library=library)
    caplog.set_level(logging.INFO, "ragimpute")
    with Panel.open(panel_h5) as panel:
        windows = panel.windows[:3]
        by_cpu = WindowIndex.build(panel, kind=kind, windows=windows)
        assert not caplog.messages
        by_gpu = WindowIndex.build(panel, kind=kind, windows=windows, searcher=searcher)
        assert library.GpuIndexBinaryFlat.made >= 3
        told = "no inverted lists of binary codes on GPUs" in " ".join(caplog.messages)
        assert told == (kind == "ivf")
        assert by_gpu.description.recall == by_cpu.description.recall
        for index, name in ((by_cpu, "cpu"), (by_gpu, "gpu")):
            index.save(tmp_path / name)
        files = {path.name: path.read_bytes() for path in (tmp_path / "cpu").iterdir()}
        assert files == {path.name: path.read_bytes() for path in (tmp_path / "gpu").iterdir()}
        opened = WindowIndex.open(tmp_path / "gpu", panel, searcher=searcher)
        already = library.GpuIndexBinaryFlat.made
        rng = np.random.default_rng(5)
        for w, (start, stop) in enumerate(windows.tolist()):
            query = panel.haplotypes(start, stop).alleles()[:, :40].T.astype(np.int8)
            query[rng.random(query.shape) < rng.random((40, 1))] = -1
            exclude = np.arange(40)[:, None]
            allowed = rng.random(panel.num_haplotypes) < 0.5
            for k, mask in ((9, None), (9, allowed), (300, allowed)):
                expected = by_cpu.search(w, query, k, exclude=exclude, allowed=mask)
                for index in (by_gpu, opened):
                    found = index.search(w, query, k, exclude=exclude, allowed=mask)
                    np.testing.assert_array_equal(found, expected)
        assert (library.GpuIndexBinaryFlat.made > already) == (kind == "flat")


def test_the_command(panel_h5, tmp_path, command_line, monkeypatch):
    """``ragimpute index --device``: in words where there is no GPU, and a row that says where."""
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    code, _, err = command_line("index", panel_h5, "-o", tmp_path / "x", "--device", "cuda")
    assert code == 1
    assert err.startswith("Error: device cuda was asked for, but faiss ")
    assert len(err.splitlines()) == 2
    assert not list(tmp_path.iterdir())
    code, out, err = command_line("index", panel_h5, "-o", tmp_path / "x")
    assert (code, err) == (0, "")
    assert "device          cpu" in out
    done = build_index(panel_h5, tmp_path / "y", device="cpu")
    assert done.device == "cpu"


def test_commands_use_a_gpu_where_there_is_one(panel_h5, tmp_path, command_line, monkeypatch):
    """``index`` makes the same folder, and a token model imputes the same by it."""
    config = load_config("v10-small", overrides=["model.encoder.dim=16"])
    save_model(tmp_path / "tokens", build(config.model), config, {})
    words = [
        "impute", example.path("target.vcf.gz"), "-p", panel_h5, "-r", "20:2000000-2020000",
        "-m", tmp_path / "tokens", "--index", tmp_path / "made", "-o", tmp_path / "x.vcf",
    ]  # fmt: skip
    made, said = {}, {}
    for where in ("cpu", "cuda:0"):
        if where == "cuda:0":
            library = Library(1)
            for name in ("StandardGpuResources", "GpuIndexBinaryFlatConfig", "GpuIndexBinaryFlat",
                         "get_num_gpus"):  # fmt: skip
                monkeypatch.setattr(faiss, name, getattr(library, name), raising=False)
        code, out, err = command_line("index", panel_h5, "-o", tmp_path / "made", "--force")
        assert (code, err) == (0, "")
        assert f"device          {where}" in out
        built = 0 if where == "cpu" else library.GpuIndexBinaryFlat.made
        code, _, err = command_line(*words)
        assert (code, err) == (0, "")
        if where == "cuda:0":
            assert 0 < built < library.GpuIndexBinaryFlat.made
        made[where] = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
        said[where] = (tmp_path / "x.vcf").read_bytes()
    assert made["cpu"] == made["cuda:0"]
    assert said["cpu"] == said["cuda:0"]
