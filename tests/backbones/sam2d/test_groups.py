"""Groups of slices: every slice from one group, with as much around it as there is."""

from __future__ import annotations

import pytest

from umdseg.backbones.sam2d.groups import Groups


@pytest.mark.parametrize("margin", [0, 1, 2])
@pytest.mark.parametrize("slices", [5, 6, 9])
@pytest.mark.parametrize("count", [1, 4, 5, 6, 7, 9, 10, 23, 64])
def test_every_slice_comes_from_one_group_of_full_size(count: int, slices: int, margin: int) -> None:
    groups = Groups()
    groups.slices, groups.margin = slices, margin
    found = groups.of(count)
    assert [z for one in found for z in range(one.first, one.last)] == list(range(count))
    for one in found:
        assert one.stop - one.start == min(slices, count)
        assert 0 <= one.start <= one.first < one.last <= one.stop <= count
        # towards the ends of the stack there is nothing more to see
        assert one.start == 0 or one.first - one.start >= margin
        assert one.stop == count or one.stop - one.last >= margin


def test_alone_by_default_and_while_encoding_told_how_many() -> None:
    groups = Groups()
    assert not groups.together
    with groups.encoding(4):
        assert groups.consecutive == 4
    assert groups.consecutive == 1
