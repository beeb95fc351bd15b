"""VoxTell: structures asked for in words."""
