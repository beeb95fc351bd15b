"""Series -> subjects: what one patient, study and frame of reference holds, and which scans are taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from umdseg.data.io.dicom.headers import not_a_scan
from umdseg.data.io.dicom.instance import numbers, text, words
from umdseg.data.io.dicom.series import Series
from umdseg.data.prepare.pseudonyms import Pseudonyms
from umdseg.data.verdict import Finding
from umdseg.errors import UserError
from umdseg.vocabulary import MODALITIES, Modality

CODES: dict[str, Modality] = {"CT": "ct", "PT": "pet", "MR": "mr"}
RULE = "attenuation-corrected PET, original before derived, axial, the longest range, then the most slices"


@dataclass(frozen=True)
class Candidate:
    """One series of a subject.

    Attributes:
        series: the series.
        modality: ct, pet or mr.
        number: running number among the subject's series of the modality, from 1, by UID.
    """

    series: Series
    modality: Modality
    number: int


@dataclass(frozen=True)
class Group:
    """One patient, study and frame of reference: one subject.

    Attributes:
        subject: pseudonym.
        person: pseudonym of the person; differs from `subject` where a person has several groups.
        study: StudyInstanceUID.
        frame: FrameOfReferenceUID, "" if absent.
        candidates: its CT, PET and MR series.
    """

    subject: str
    person: str
    study: str
    frame: str
    candidates: tuple[Candidate, ...]

    def name(self, candidate: Candidate) -> str:
        """What messages call a series: `<subject>/<modality><number>`."""
        return f"{self.subject}/{candidate.modality}{candidate.number}"


def group(series: Sequence[Series], pseudonyms: Pseudonyms) -> tuple[list[Group], list[Finding]]:
    """Group the CT, PET and MR series by patient, study and frame of reference.

    Different frames of reference are different patient spaces (PS3.3 C.7.4.1), also within one study, so
    they become subjects of their own; so does every series without a frame of reference.

    Raises:
        UserError: ids are kept and two people would get the same one.
    """
    found: dict[str, dict[tuple[str, str], list[Series]]] = {}
    owners: dict[str, str] = {}
    for one in series:
        if one.modality not in CODES:
            continue
        # files without a patient id: one study is as far as one person is known to reach
        patient = one.patient or f"\x1f{one.study}"
        person = pseudonyms.person(patient, text(one.header, "PatientID"))
        if owners.setdefault(person, patient) != patient:
            expected = "ids that differ, or pseudonyms (leave --keep-ids out)"
            raise UserError(f"two patients would both be called '{person}'", expected=expected)
        space = one.frame or f"\x1f{one.uid}"
        found.setdefault(person, {}).setdefault((one.study, space), []).append(one)
    groups, findings = [], []
    stray = 0
    for person, spaces in sorted(found.items()):
        # a frame of reference of localizers alone makes no subject
        real = {key: own for key, own in spaces.items() if any(not_a_scan(one) is None for one in own)}
        stray += sum(len(own) for key, own in spaces.items() if key not in real)
        own = [_group(person, key, members, len(real), pseudonyms) for key, members in real.items()]
        groups += sorted(own, key=lambda group: group.subject)
        findings += _apart(person, own)
    if stray:
        findings.append(Finding("pass", f"{stray} series of localizers, captures or projections left out"))
    return groups, findings


def choose(
    group: Group, modality: Modality, forced: Collection[str]
) -> tuple[Candidate | None, list[Finding]]:
    """The series of a modality that is taken, and what is worth telling about it.

    Args:
        group: the subject.
        modality: ct, pet or mr.
        forced: UIDs or message names of series that are taken whatever the rule says.
    """
    own = [candidate for candidate in group.candidates if candidate.modality == modality]
    wanted = [c for c in own if c.series.uid in forced or group.name(c) in forced]
    if len(wanted) > 1:
        names = ", ".join(map(group.name, wanted))
        what = f"--series names {len(wanted)} {modality} series of one subject: {names}"
        raise UserError(what, expected="one of them")
    fitting = wanted or [c for c in own if not_a_scan(c.series) is None]
    if not fitting:
        return None, []
    best = max(fitting, key=lambda candidate: (_rank(candidate.series), -candidate.number))
    if wanted or len(fitting) == 1:
        return best, []
    others = [candidate for candidate in fitting if candidate is not best]
    not_taken = ", ".join(f"{group.name(c)} ({c.series.name})" for c in others)
    what = f"{len(fitting)} {modality} series; took {group.name(best)} ({best.series.name}), not {not_taken}"
    expected = f"rule: {RULE}; to take another: --series {group.name(others[0])}"
    return best, [Finding("warn", what, "", expected)]


def _group(
    person: str, key: tuple[str, str], members: Sequence[Series], spaces: int, pseudonyms: Pseudonyms
) -> Group:
    study, frame = key
    subject = f"{person}-{pseudonyms.session(study, frame)}" if spaces > 1 else person
    counts: Counter[str] = Counter()
    candidates = []
    for one in sorted(members, key=lambda one: (MODALITIES.index(CODES[one.modality]), one.uid, one.files)):
        modality = CODES[one.modality]
        counts[modality] += 1
        candidates.append(Candidate(one, modality, counts[modality]))
    return Group(subject, person, study, "" if frame.startswith("\x1f") else frame, tuple(candidates))


def _apart(person: str, groups: Sequence[Group]) -> list[Finding]:
    findings = []
    studies: dict[str, list[Group]] = {}
    for own in groups:
        studies.setdefault(own.study, []).append(own)
    for same in studies.values():
        if len(same) > 1:
            held = [f"{g.subject} ({', '.join(sorted({c.modality for c in g.candidates}))})" for g in same]
            what = f"a study holds {len(same)} frames of reference, which are not one patient space"
            if not all(g.frame for g in same):
                what = "a study holds series without a frame of reference, which are in no known space"
            what += f", so it became {' and '.join(held)}"
            expected = "scans of one frame of reference; register the others first if they shall be a pair"
            findings.append(Finding("warn", what, person, expected))
    if len(studies) > 1:
        what = f"a person has {len(studies)} studies: {', '.join(sorted(g.subject for g in groups))}"
        expected = "all subjects of a person in one split"
        findings.append(Finding("warn", what, person, expected))
    return findings


def _rank(series: Series) -> tuple[bool, bool, bool, float, int]:
    header = series.header
    original = "DERIVED" not in words(header, "ImageType")
    corrected = series.modality != "PT" or "ATTN" in words(header, "CorrectedImage")
    count = int((numbers(header, "NumberOfFrames") or [0])[0]) or len(series.files)
    step = (numbers(header, "SpacingBetweenSlices") or numbers(header, "SliceThickness") or [1.0])[0]
    # a tenth of a metre: small differences of the range do not outweigh thinner slices
    reach = round(count * abs(step) / 100)
    return corrected, original, _axial(numbers(header, "ImageOrientationPatient")), reach, count


def _axial(orientation: Sequence[float]) -> bool:
    if len(orientation) != 6:
        return False
    (a, b, _), (d, e, _) = orientation[:3], orientation[3:]
    return abs(a * e - b * d) > 0.8
