"""umdseg: find, measure and close the modality gap of 3D medical segmentation foundation models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umdseg.backbones import load_backbone as load_backbone

__version__ = "0.1.0"
__all__ = ["__version__", "load_backbone"]


def __getattr__(name: str) -> Any:
    # torch and MONAI take seconds to import; `import umdseg` should not
    if name == "load_backbone":
        from umdseg.backbones import load_backbone

        return load_backbone
    raise AttributeError(f"module 'umdseg' has no attribute '{name}'")
