"""A panel of which one stretch is read while its user does other things."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait

from ragimpute.panel.haplotypes import Haplotypes
from ragimpute.panel.reader import Panel


class PanelAhead(Panel):
    """A panel whose sites [start, stop) begin to be read now, in a thread of their own.

    Who asks for haplotypes first is given these, if they are those, or told of what went wrong.
    """

    def __init__(self, whole: Panel, start: int, stop: int) -> None:
        self.__dict__.update(whole.__dict__)
        self._whole = whole
        pool = ThreadPoolExecutor(1, thread_name_prefix="panel")
        self._ahead: dict[tuple[int, int], Future[Haplotypes]] = {
            (start, stop): pool.submit(whole.haplotypes, start, stop)
        }
        pool.shutdown(wait=False)

    def haplotypes(self, start: int, stop: int) -> Haplotypes:
        """See :meth:`Panel.haplotypes`."""
        self.finish()
        found = self._ahead.get((start, stop))
        self._ahead = {}
        return self._whole.haplotypes(start, stop) if found is None else found.result()

    def bytes_per_site(self) -> float:
        """See :meth:`Panel.bytes_per_site`."""
        return self._whole.bytes_per_site()

    def finish(self) -> None:
        """Wait until nothing is being read: the file may be closed then."""
        wait(self._ahead.values())
