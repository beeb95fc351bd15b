"""Slices in the order of their place in the patient, and the regular grid they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Grid
from umdseg.data.io.dicom.slices import DISTINCT, Slice
from umdseg.data.verdict import Finding
from umdseg.errors import UserError

Array = NDArray[np.float64]
NOISE_MM = 0.01  # positions are decimal strings, often rounded
UNEVEN = 0.01  # share of the spacing a gap may differ by without a word
OFF_MM = 0.1  # a slice may lie off its place in the grid by as much as two equal grids may differ
ANGLE = 1e-3  # between unit vectors
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
REGULAR = "evenly spaced parallel slices of one acquisition"


def stack(slices: Sequence[Slice], where: Path | str) -> tuple[list[Slice], Grid, tuple[Finding, ...]]:
    """Order slices along their common normal (never by InstanceNumber or file name).

    The spacing is that of the positions; SliceThickness is only compared with it.

    Args:
        slices: in any order; the same instance given twice counts once.
        where: named in messages.

    Returns:
        The slices from the lowest place along the normal on, their grid (X = columns, Y = rows,
        Z = slices; RAS+ millimetres), and warnings.

    Raises:
        UserError: a single slice, slices unlike in shape, orientation or pixel spacing, several slices at
            one place, a missing slice, uneven gaps, or slices shifted sideways (gantry tilt).
    """
    unique = list({s.key: s for s in slices}.values())
    findings = []
    if len(unique) < len(slices):
        what = f"{len(slices) - len(unique)} files are copies of other instances of the series"
        findings.append(Finding("warn", f"{what}; each was read once", str(where)))
    if len(unique) < 2:
        raise UserError("series has a single slice", where=where, expected="a volume of at least two slices")
    _check_alike(unique, where)
    rows, columns = _axes(unique[0], where)
    normal = np.cross(rows, columns)
    place = np.array([s.position for s in unique]) @ normal
    order = np.argsort(place, kind="stable")
    ordered, place = [unique[i] for i in order], place[order]
    _check_places(ordered, place, where)
    findings += _check_gaps(place, where)
    step = float(place[-1] - place[0]) / (len(ordered) - 1)
    _check_sideways(np.array([s.position for s in ordered]), normal, step, where)
    thickness = ordered[0].thickness
    if thickness and abs(thickness - step) > max(UNEVEN * step, NOISE_MM):
        what = f"Slice Thickness is {thickness:g} mm but slices lie {step:.4g} mm apart"
        findings.append(Finding("warn", f"{what}; the positions are used", str(where)))
    affine = np.eye(4)
    affine[:3, :3] = np.stack(
        [rows * ordered[0].spacing[1], columns * ordered[0].spacing[0], normal * step], axis=1
    )
    affine[:3, 3] = ordered[0].position
    shape = (ordered[0].shape[1], ordered[0].shape[0], len(ordered))
    return ordered, Grid(shape, LPS_TO_RAS @ affine), tuple(findings)


def _axes(first: Slice, where: Path | str) -> tuple[Array, Array]:
    rows, columns = np.array(first.rows), np.array(first.columns)
    lengths = np.linalg.norm(rows), np.linalg.norm(columns)
    if abs(rows @ columns) > ANGLE or max(abs(length - 1) for length in lengths) > ANGLE:
        given = [*first.rows, *first.columns]
        what = f"Image Orientation (Patient) is no pair of unit vectors at right angles: {given}"
        raise UserError(what, where=where, expected="direction cosines (DICOM PS3.3 C.7.6.2.1.1)")
    # rounded cosines would shear the grid a little
    rows = rows / lengths[0]
    columns = columns - (columns @ rows) * rows
    return rows, columns / np.linalg.norm(columns)


def _check_alike(slices: Sequence[Slice], where: Path | str) -> None:
    shapes = Counter(s.shape for s in slices)
    if len(shapes) > 1:
        what = "slices differ in shape: " + ", ".join(
            f"{n} of {r} x {c}" for (r, c), n in shapes.most_common(4)
        )
        raise UserError(what, where=where, expected="slices of one shape")
    axes = np.array([[*s.rows, *s.columns] for s in slices])
    turned = np.abs(axes - np.median(axes, axis=0)).max(axis=1) > ANGLE
    if turned.any():
        kinds = len(np.unique(np.round(axes, 2), axis=0))
        what = f"slices have {kinds} orientations ({int(turned.sum())} of {len(slices)} differ)"
        raise UserError(what, where=where, expected=f"{REGULAR} (is it a three-plane localizer?)")
    spacing = np.array([s.spacing for s in slices])
    if (np.ptp(spacing, axis=0) > 1e-3 * spacing[0]).any():
        low, high = spacing.min(axis=0), spacing.max(axis=0)
        what = f"slices differ in Pixel Spacing, from {low[0]:g} x {low[1]:g} to {high[0]:g} x {high[1]:g} mm"
        raise UserError(what, where=where, expected="slices of one spacing")


def _check_places(slices: Sequence[Slice], place: Array, where: Path | str) -> None:
    """Several slices at one place: phases, echoes, time points, or two series in one."""
    # a run of slices closer than rounding noise is one place
    starts = np.flatnonzero(np.diff(place, prepend=-np.inf) > NOISE_MM)
    counts = np.diff([*starts, len(place)])
    if (counts == 1).all():
        return
    first = int(starts[np.argmax(counts > 1)])
    pair = slices[first].extra, slices[first + 1].extra
    differ = [f"{tag} {a} and {b}" for tag, a, b in zip(DISTINCT, *pair, strict=True) if a != b]
    what = (
        f"{int((counts > 1).sum())} of {len(starts)} places hold {counts.min()} to {counts.max()} slices each"
    )
    if (counts == counts[0]).all():
        what = f"each of {len(starts)} places holds {counts[0]} slices"
    what += f", the first at {place[first]:.2f} mm"
    if differ:
        # times of day are left out: they date the examination
        named = [d for d in differ if not d.startswith("AcquisitionTime")] or ["Acquisition Time"]
        what += "; they differ in " + ", ".join(named)
    raise UserError(
        what, where=where, expected=f"{REGULAR}: export echoes, phases, time points as own series"
    )


def _check_gaps(place: Array, where: Path | str) -> tuple[Finding, ...]:
    gaps = np.diff(place)
    usual = float(np.median(gaps))
    tolerance = max(UNEVEN * usual, NOISE_MM)
    odd = np.flatnonzero(np.abs(gaps - usual) > tolerance)
    off = float(np.abs(place - np.linspace(place[0], place[-1], len(place))).max())
    if off <= max(min(OFF_MM, 0.1 * usual), NOISE_MM):
        if not len(odd):
            return ()
        what = f"gaps between slices vary from {gaps.min():.3f} to {gaps.max():.3f} mm"
        what += f"; every slice lies within {off:.3f} mm of even spacing"
        return (Finding("warn", what, str(where)),)
    shown = ", ".join(f"{gaps[i]:.3f} mm between {place[i]:.2f} and {place[i + 1]:.2f} mm" for i in odd[:3])
    shown += ", ..." if len(odd) > 3 else ""
    times = np.round(gaps[odd] / usual)
    whole = (times >= 2) & (np.abs(gaps[odd] - times * usual) <= tolerance * times)
    if len(odd) and whole.all():
        missing = int((times - 1).sum())
        what = f"{missing} slice{'s are' if missing > 1 else ' is'} missing: {shown}"
        what += f" where slices lie {usual:.3f} mm apart"
        raise UserError(what, where=where, expected="all slices of the series; export it again")
    shown = shown or f"{gaps.min():.3f} to {gaps.max():.3f} mm, adding up to {off:.2f} mm"
    what = f"slices are unevenly spaced: {shown}; most lie {usual:.3f} mm apart"
    raise UserError(what, where=where, expected=f"{REGULAR} (within {OFF_MM} mm of even spacing)")


def _check_sideways(position: Array, normal: Array, step: float, where: Path | str) -> None:
    shift = position - position[0]
    shift = shift - np.outer(shift @ normal, normal)
    far = np.linalg.norm(shift, axis=1)
    if far.max() <= OFF_MM:
        return
    per_slice = shift[-1] / (len(shift) - 1)
    bent = np.linalg.norm(shift - np.outer(np.arange(len(shift)), per_slice), axis=1).max()
    if bent > OFF_MM:
        what = f"slices are shifted sideways against each other by up to {far.max():.2f} mm"
        raise UserError(what, where=where, expected=REGULAR)
    degrees = float(np.degrees(np.arctan2(np.linalg.norm(per_slice), step)))
    what = f"slices are sheared by {degrees:.2f} degrees (gantry tilt): {far.max():.1f} mm over the volume"
    raise UserError(what, where=where, expected="a scan without tilt; resample it to a regular grid first")
