"""data=petct and data=petmri: the user's own paired scans, listed in a manifest."""

from __future__ import annotations

from dataclasses import dataclass, field

from umdseg.data.manifest import read_manifest
from umdseg.data.options import DataOptions
from umdseg.data.rows import COLUMNS
from umdseg.data.sources.base import Listing, Source
from umdseg.errors import UserError

_PAIRS = {"petct": ["ct", "pet"], "petmri": ["mr", "pet"]}
_EXAMPLE = {
    "petct": "P001,pet,images/P001_pet.nii.gz,labels/P001_pet.nii.gz,SUV,FDG,train,siteA",
    "petmri": "P001,mr,images/P001_t1.nii.gz,labels/P001_t1.nii.gz,a.u.,T1,train,siteA",
}


@dataclass
class ManifestOptions(DataOptions):
    """Options of a manifest.

    Attributes:
        manifest: CSV file, see `umdseg.data.manifest`.
        structures_file: YAML naming the structures; None means `<CSV stem>.yaml` beside the CSV.
        modalities: evaluated. By default the pair the name stands for (petct: ct, pet; petmri: mr, pet);
            the command line refuses an empty list.
        train_modalities: as elsewhere. By default those that are evaluated, all alike.
    """

    name: str = "petct"
    modalities: list[str] = field(default_factory=list)
    train_modalities: dict[str, float] = field(default_factory=dict)
    manifest: str | None = None
    structures_file: str | None = None

    def __post_init__(self) -> None:
        # an empty default because the name is known only now
        pair = _PAIRS.get(self.name, ["ct", "pet", "mr"])
        self.modalities = self.modalities or list(pair)
        self.train_modalities = self.train_modalities or dict.fromkeys(self.modalities, 1.0)


class ManifestSource(Source):
    """Reads the manifest and checks every file's header."""

    Options = ManifestOptions
    options: ManifestOptions

    def listing(self, seed: int) -> Listing:
        """As `Source.listing`; the splits are the manifest's unless `data.folds` deals others.

        Raises:
            UserError: no manifest given, or anything wrong in it.
        """
        del seed
        name = self.options.name
        if not self.options.manifest:
            raise UserError(
                f"data={name} needs a manifest of your scans",
                where="data.manifest",
                expected="a CSV, one row per scan, beside a YAML of the same stem, for example\n"
                f"      subjects.csv:   {','.join(COLUMNS)}\n"
                f"                      {_EXAMPLE.get(name, _EXAMPLE['petct'])}\n"
                "      subjects.yaml:  structures: {liver: 1, spleen: 2}\n"
                f"    python train.py data={name} data.manifest=subjects.csv",
            )
        return Listing(read_manifest(self.options.manifest, self.options.structures_file))
