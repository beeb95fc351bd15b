"""One file per dataset; each gives a `PairedDataset`."""
