"""COCO datasets, prompt simulation, transforms, and the phantom."""
