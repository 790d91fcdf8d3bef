"""How many threads FAISS may start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ragimpute.retrieval.faiss_library import faiss

# Distances below which a search takes one thread: on two busy cores, 6 queries of 500 haplotypes
# take 0.1 ms with one thread and 11 ms with two.
_ONE_THREAD_BELOW = 1_000_000


def search_with_one_thread() -> None:
    """Let searches in this process use one thread: a forked process hangs if it starts others."""
    faiss.omp_set_num_threads(1)


@contextmanager
def threads_for(num_distances: int) -> Iterator[None]:
    """Let FAISS use one thread if waking the others would take longer than the search itself."""
    threads = faiss.omp_get_max_threads()
    if num_distances < _ONE_THREAD_BELOW:
        faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
