"""Paired data: datasets, manifests, grids, preprocessing, cache, patches and whole cases."""
