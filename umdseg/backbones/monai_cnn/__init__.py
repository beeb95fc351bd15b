"""Segmentation networks with a fixed class list: MONAI's pretrained ones, and U-Nets trained from scratch."""
