"""nnU-Net v2 (Isensee et al., Nature Methods 2021): any result folder, and the published releases made so."""
