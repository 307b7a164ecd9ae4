"""Building nets from an ArchSpec and writing them as prototxt."""
