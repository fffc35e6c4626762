"""Making one collection of all converted sets: near duplicates joined, sides decided, files for training merged."""
