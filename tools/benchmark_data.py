#!/usr/bin/env python
"""Measure the speed and memory of data preparation, or with ``--loading`` of the training pipeline."""

import sys

if __name__ == "__main__":
    if "--loading" in sys.argv[1:]:
        from ultrasam.datasets.benchmark import main
    else:
        from data_prep.benchmark import main
    sys.exit(main([argument for argument in sys.argv[1:] if argument != "--loading"]))
