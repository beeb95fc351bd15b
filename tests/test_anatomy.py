"""The structure table against the published tables it must agree with."""

from __future__ import annotations

import json

import pytest

from umdseg import anatomy
from umdseg.errors import UserError


@pytest.fixture(scope="module")
def totalsegmentator(shared_data):
    return json.loads((shared_data / "totalsegmentator" / "class_ids.json").read_text())


@pytest.fixture(scope="module")
def nv_ct(shared_reference):
    return json.loads((shared_reference / "labels" / "nv_segment_ct.label_dict.json").read_text())


@pytest.fixture(scope="module")
def nv_ctmr(shared_reference):
    table = json.loads((shared_reference / "labels" / "nv_segment_ctmr.label_dict.json").read_text())
    return {name: entry["index"] for name, entry in table.items()}


@pytest.fixture(scope="module")
def mappings(shared_reference):
    """Published data set id -> NV-Segment-CTMR index, per data set."""
    text = (shared_reference / "labels" / "nv_segment_ctmr.label_mappings.json").read_text()
    return {dataset: dict(pairs) for dataset, pairs in json.loads(text).items()}


@pytest.mark.parametrize(
    ("task", "scheme"), [("total", "totalsegmentator"), ("total_mr", "totalsegmentator_mr")]
)
def test_totalsegmentator_ids_are_the_published_ones(totalsegmentator, task, scheme):
    assert anatomy.ids(scheme) == {name: int(id) for id, name in totalsegmentator[task].items()}


def test_vista3d_ids_are_the_published_ones_and_the_super_classes(nv_ct):
    ids = anatomy.ids("vista3d")
    assert len(ids) == 127
    assert {name: ids[anatomy.canonical(name)] for name in nv_ct} == nv_ct
    assert set(ids.values()) - set(nv_ct.values()) == {2, 20, 21}


def test_every_nv_segment_name_leads_to_its_index(nv_ctmr):
    ids = anatomy.ids("nv_segment_ctmr")
    assert {name: ids[anatomy.canonical(name)] for name in nv_ctmr} == nv_ctmr
    assert len(ids) == len(nv_ctmr) == 345


def test_undefined_nv_segment_indices_are_never_offered(nv_ctmr):
    undefined = {index for name, index in nv_ctmr.items() if "deprecated" in name}
    assert {16, 129, 130, 131, 133, *range(137, 146), 162} <= undefined
    offered = set(anatomy.direct("nv_segment_ctmr").values())
    assert offered == set(nv_ctmr.values()) - undefined - {2, 20, 21}


def test_total_mr_rows_join_as_nvidia_joined_them(mappings):
    # in the published mapping the data set id counts TotalSegmentator's MR names in alphabetical order
    names = sorted(anatomy.ids("totalsegmentator_mr"))
    ours = anatomy.ids("nv_segment_ctmr")
    assert {i: ours[name] for i, name in enumerate(names, 1)} == mappings["TotalSegmentatorMR"]


def test_total_rows_join_as_nvidia_joined_them(mappings):
    ours = anatomy.ids("nv_segment_ctmr")
    joined = {i: ours[name] for i, name in enumerate(_total_in_nvidia_order(), 1)}
    assert joined == mappings["TotalSegmentatorV2"]
    assert set(_total_in_nvidia_order()) == set(anatomy.ids("totalsegmentator"))


def test_vertebrae_join_as_in_verse(mappings):
    # VerSe counts the spine downwards: C1-7, T1-12, L1-5
    spine = [f"{level}{n}" for level, last in (("C", 7), ("T", 12), ("L", 5)) for n in range(1, last + 1)]
    for scheme in ("vista3d", "nv_segment_ctmr"):
        ours = anatomy.ids(scheme)
        assert {i: ours[f"vertebrae_{v}"] for i, v in enumerate(spine, 1)} == mappings["VerSe"]


def test_abdominal_organs_join_as_in_amos(mappings):
    # AMOS22's own order; its 15th class is prostate or uterus
    organs = (
        "spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta",
        "postcava", "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder",
        "prostate",
    )  # fmt: skip
    ours = anatomy.ids("nv_segment_ctmr")
    assert {i: ours[anatomy.canonical(name)] for i, name in enumerate(organs, 1)} == mappings["AMOS22"]


def test_amos_ids_are_the_published_ones():
    # dataset.json of the archive (its "arota" and "postcava" are the aorta and the inferior vena cava)
    published = (
        "spleen", "right kidney", "left kidney", "gall bladder", "esophagus", "liver", "stomach", "aorta",
        "postcava", "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder",
        "prostate/uterus",
    )  # fmt: skip
    assert anatomy.ids("amos") == {anatomy.canonical(name): i for i, name in enumerate(published, 1)}


def test_amos_rows_join_as_nvidia_joined_them_but_for_prostate_or_uterus(mappings):
    ours, amos = anatomy.ids("nv_segment_ctmr"), anatomy.ids("amos")
    joined = {id: ours[name] for name, id in amos.items() if name in ours}
    assert joined == {id: index for id, index in mappings["AMOS22"].items() if id != 15}


def test_dap_atlas_ids_are_those_two_publications_read_alike(mappings):
    ours, dap = anatomy.ids("nv_segment_ctmr"), anatomy.ids("dap_atlas")
    nvidia = mappings["AutoPETAtlas"]
    assert {id: ours[name] for name, id in dap.items()} == {id: nvidia[id] for id in dap.values()}
    # what NVIDIA knows beyond: ribs (counted from the other end), unclear or differently read ids
    assert set(nvidia) - set(dap.values()) == {11, 21, 24, *range(67, 91), 105, 107, 125}


@pytest.mark.parametrize(
    ("id", "name"),
    [
        # lines of Data/label_name.csv, alexanderjaus/AtlasDataset
        (2, "muscles"), (6, "esophagus"), (13, "liver"), (15, "kidney left"), (16, "kidney right"),
        (17, "bladder"), (20, "uterocervix"), (29, "thyroid left"), (41, "autochthon right"),
        (43, "vertebrae C1"), (49, "vertebrae C7"), (50, "vertebrae T1"), (66, "vertebrae L5"),
        (91, "rib_cartilage"), (93, "clavicle left"), (104, "femur right"), (109, "heart myocardium"),
        (118, "portal vein and splenic vein"), (120, "lung lower lobe left"), (124, "lung upper lobe right"),
        (131, "eyeball right"),
    ],
)  # fmt: skip
def test_dap_atlas_names_are_its_own(id, name):
    assert anatomy.name_of("dap_atlas", id) == anatomy.canonical(name)


def test_autopet_organ_has_the_organs_its_publisher_names_but_the_prostate():
    # README of YichiZhang98/SegAnyPET, in its order
    named = (
        "liver", "left kidney", "right kidney", "heart", "spleen", "aorta", "left lung lower lobe",
        "right lung lower lobe", "left lung upper lobe", "right lung upper lobe", "right lung middle lobe",
    )  # fmt: skip
    ids = anatomy.ids("autopet_organ")
    assert [anatomy.name_of("autopet_organ", id) for id in range(1, 12)] == [*map(anatomy.canonical, named)]
    assert len(ids) == 11


def test_enhance_pet_has_all_published_structures_but_body_composition():
    # 130 regions (DATA_CARD.md), 3 of them body composition
    ids = anatomy.ids("enhance_pet")
    assert sorted(ids.values()) == list(range(1, 128))
    assert len([name for name in ids if name.startswith("rib_")]) == 26
    assert len([name for name in ids if name.startswith("vertebrae_")]) == 25


def test_vista3d_and_its_successor_share_their_indices():
    ct, ctmr = anatomy.ids("vista3d"), anatomy.ids("nv_segment_ctmr")
    assert ct.items() <= ctmr.items()


@pytest.mark.parametrize("scheme", anatomy.SCHEMES)
def test_an_id_means_one_structure(scheme):
    ids = anatomy.ids(scheme)
    assert len(set(ids.values())) == len(ids)
    assert {anatomy.name_of(scheme, id): id for id in ids.values()} == ids


def test_umd13_is_numbered_in_its_order():
    assert anatomy.ids("umd13") == {name: i for i, name in enumerate(anatomy.UMD13, 1)}
    assert anatomy.direct("umd13").keys() == set(anatomy.UMD13)


def test_every_umd13_organ_can_be_asked_from_vista3d():
    reachable = anatomy.direct("vista3d").keys() | anatomy.groups("vista3d").keys()
    assert set(anatomy.UMD13) <= reachable


def test_super_classes_of_vista3d_are_the_published_ones():
    ids = anatomy.ids("vista3d")
    parts = {ids[whole]: {ids[part] for part in way} for whole, way in anatomy.groups("vista3d").items()}
    bone = {*range(33, 57), *range(63, 98), 114, 120, 122}
    assert parts == {2: {5, 14}, 20: {28, 29, 30, 31, 32}, 21: bone}


def test_a_lung_is_built_from_what_the_scheme_has():
    assert len(anatomy.groups("totalsegmentator")["lung"]) == 5
    assert anatomy.groups("totalsegmentator_mr")["lung"] == ("lung_left", "lung_right")
    assert "lung" not in anatomy.groups("sts")


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("liver", "liver"),
        ("Left Kidney", "kidney_left"),
        ("kidney_left", "kidney_left"),
        ("right-rib-10", "rib_right_10"),
        ("VERTEBRAE l5", "vertebrae_L5"),
        ("bladder", "urinary_bladder"),
        ("tumor", "tumour"),
        ("kidneys", "kidney"),
        ("prostate/uterus", "prostate_or_uterus"),
        ("vertebra_C7", "vertebrae_C7"),
        ("hepatic tumour", "liver_tumour"),
        ("Right-MPrG--precentral-gyrus", "precentral_gyrus_medial_segment_right"),
        ("Right-PrG---precentral-gyrus", "precentral_gyrus_right"),
    ],
)
def test_aliases(asked, name):
    assert anatomy.canonical(asked) == name


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("livr", "liver"),
        ("kidny_left", "kidney_left"),
        ("left kidny", "kidney_left"),
        ("oesophagos", "esophagus"),
    ],
)
def test_unknown_names_raise_with_the_nearest(typo, meant):
    with pytest.raises(UserError) as caught:
        anatomy.canonical(typo)
    assert caught.value.nearest == meant
    assert typo in str(caught.value)


def test_a_structure_no_model_defines_is_not_suggested():
    with pytest.raises(UserError) as caught:
        anatomy.canonical("fibulas")
    assert "deprecated" not in str(caught.value)


def test_unknown_schemes_and_ids_raise():
    with pytest.raises(UserError, match="vista3d"):
        anatomy.ids("vista-3d")
    with pytest.raises(UserError, match="no id 18"):
        anatomy.name_of("vista3d", 18)


def _total_in_nvidia_order():
    """TotalSegmentator's names as the published mapping counts them.

    First the classes of version 1 in their order (without heart chambers, pulmonary artery and face,
    which version 2 dropped), then the classes new in version 2 in alphabetical order.
    """
    sides = ("left", "right")
    first = [
        *("spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "aorta"),
        *("inferior_vena_cava", "portal_vein_and_splenic_vein", "pancreas"),
        *("adrenal_gland_right", "adrenal_gland_left", "lung_upper_lobe_left", "lung_lower_lobe_left"),
        *("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
        *(f"vertebrae_{v}{n}" for v, last in (("L", 5), ("T", 12), ("C", 7)) for n in range(last, 0, -1)),
        *("esophagus", "trachea", "brain"),
        *(f"iliac_{vessel}_{side}" for vessel in ("artery", "vena") for side in sides),
        *("small_bowel", "duodenum", "colon"),
        *(f"rib_{side}_{n}" for side in sides for n in range(1, 13)),
        *(f"{b}_{side}" for b in ("humerus", "scapula", "clavicula", "femur", "hip") for side in sides),
        "sacrum",
        *(f"gluteus_{m}_{side}" for m in ("maximus", "medius", "minimus") for side in sides),
        *(f"{m}_{side}" for m in ("autochthon", "iliopsoas") for side in sides),
        "urinary_bladder",
    ]
    return first + sorted(set(anatomy.ids("totalsegmentator")) - set(first))
