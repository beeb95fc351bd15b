"""Runs: folders, provenance, resuming, sweeps, and the flows of the two doors."""
