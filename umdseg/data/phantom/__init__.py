"""Procedural whole-body subjects: one anatomy seen by CT, T1 MR and FDG PET."""
