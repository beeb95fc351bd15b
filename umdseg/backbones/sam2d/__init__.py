"""SAM, MedSAM, SAM 2 and MedSAM2: networks for single images, taken through volumes slice by slice."""
