"""Multi-modal heads around a backbone."""
