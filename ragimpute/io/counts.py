"""What became of the records of a file that is read."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class RecordCounts:
    """Counts of a panel's source: its sites and what was left out are all of its records and ALTs.

    Attributes
    ----------
    num_records
        Records so far, within the region.
    num_further_alts
        ALTs of these records beyond the first of each.
    skipped
        How many records or ALTs gave no site, by reason: "no_alt" (ALT is "."), "position_0",
        "repeated" (an ALT that is spelled like REF or an ALT before it).
    """

    num_records: int = 0
    num_further_alts: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str, num: int = 1) -> None:
        """Count what is left out."""
        if num:
            self.skipped[reason] = self.skipped.get(reason, 0) + num
