"""Options are what Hydra's structured configs need, and refuse what cannot work."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, ValidationError

from umdseg.data.options import DataOptions
from umdseg.data.sources.manifest import ManifestOptions
from umdseg.data.sources.sts import StsOptions
from umdseg.errors import UserError
from umdseg.prompts.auto import AutoOptions
from umdseg.prompts.point import PointOptions


@pytest.mark.parametrize("schema", [DataOptions, ManifestOptions, StsOptions, AutoOptions, PointOptions])
def test_options_are_a_schema_that_refuses_typos(schema: type) -> None:
    config = OmegaConf.structured(schema)
    assert isinstance(OmegaConf.to_object(config), schema)
    with pytest.raises(ConfigKeyError):
        OmegaConf.merge(config, {"nmae": "x"})


def test_types_are_checked() -> None:
    with pytest.raises(ValidationError):
        OmegaConf.merge(OmegaConf.structured(StsOptions), {"folds": "many"})
    merged = OmegaConf.merge(OmegaConf.structured(StsOptions), {"shots": 2, "structures": ["tumour"]})
    made = OmegaConf.to_object(merged)
    assert (made.shots, made.structures, made.modalities) == (2, ["tumour"], ["ct", "pet", "mr"])


def test_petmri_gets_its_own_pair_through_a_config() -> None:
    made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ManifestOptions), {"name": "petmri"}))
    assert made.modalities == ["mr", "pet"]
    assert made.train_modalities == {"mr": 1.0, "pet": 1.0}


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"modalities": ["ct", "pte"]}, "data.modalities"),
        ({"train_modalities": {"ctt": 1.0}}, "data.train_modalities"),
        ({"train_modalities": {"ct": -1.0}}, "data.train_modalities.ct"),
        ({"modalities": []}, "data.modalities"),
        ({"modalities": ["ct", "pet", "ct"]}, "data.modalities"),
        ({"train_modalities": {}}, "data.train_modalities"),
        ({"structures": []}, "data.structures"),
        ({"structures": ["liver", "liver"]}, "data.structures"),
        ({"foreground": 1.5}, "data.foreground"),
        ({"batch_size": 0}, "data.batch_size"),
        ({"shots": 0}, "data.shots"),
        ({"patches_per_epoch": 0}, "data.patches_per_epoch"),
        ({"workers": -1}, "data.workers"),
        ({"cache_gb": -1.0}, "data.cache_gb"),
        ({"structure_weights": {"tumour": -1.0}}, "data.structure_weights.tumour"),
    ],
)
def test_values_out_of_range_are_refused(options: dict, where: str) -> None:
    with pytest.raises(UserError) as caught:
        DataOptions(**options).validate()
    assert caught.value.where == where
    assert caught.value.expected


def test_a_manifest_trains_on_what_it_evaluates_unless_told_otherwise() -> None:
    from umdseg.data.sources.manifest import ManifestOptions

    assert set(ManifestOptions(modalities=["ct", "mr"]).train_modalities) == {"ct", "mr"}
    assert set(ManifestOptions().train_modalities) == {"ct", "pet"}
    assert ManifestOptions(modalities=["ct"], train_modalities={"pet": 2.0}).train_modalities == {"pet": 2.0}
