"""The prepared scans of one model and one list of structures, few of them open at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from umdseg.data.cache import PreparedCache
from umdseg.data.preprocess import Preprocessing
from umdseg.data.store import CachedScan
from umdseg.vocabulary import Modality, Subject

# each open scan costs two file mappings and its index; one of whole bodies is read in milliseconds
MOST_OPEN = 64
# what reading an entry that was damaged or removed meanwhile raises
READ_ERRORS = (OSError, RuntimeError, ValueError)

_Key = tuple[str, Modality]


@dataclass(frozen=True)
class ScanStore:
    """Prepared scans for one preprocessing and one list of structures.

    Memory and open files do not grow with the number of subjects: the scans used last stay open, the
    others are closed. Travels to other processes without what is open.

    Attributes:
        cache: where they lie.
        preprocessing: the card's numbers.
        ids: label ids that become 1, 2, ... in this order.
        allowed: all ids a label may hold.
    """

    cache: PreparedCache
    preprocessing: Preprocessing
    ids: Sequence[int]
    allowed: Sequence[int]
    _open: OrderedDict[_Key, CachedScan] = field(default_factory=OrderedDict, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[ScanStore], tuple[object, ...]]:
        return ScanStore, (self.cache, self.preprocessing, self.ids, self.allowed)

    def get(self, subject: Subject, modality: Modality) -> CachedScan:
        """One prepared scan, prepared now if the cache has none."""
        key = (subject.id, modality)
        if key not in self._open:
            scan, others = subject.scans[modality], subject.other_images(modality)
            made = self.cache.get(scan, subject.id, self.preprocessing, self.ids, self.allowed, others)
            self._open[key] = made
        self._open.move_to_end(key)
        while len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)
        return self._open[key]

    def mend(self) -> bool:
        """After a scan could not be read: close all, remove those that are damaged; `get` makes them anew.

        Returns:
            Whether any was damaged or gone; if not, the reason lies elsewhere.
        """
        found = [
            self.cache.discard_damaged(scan.folder, f"subject {subject} ({modality})", deep=True)
            for (subject, modality), scan in self._open.items()
        ]
        self._open.clear()
        return any(found)
