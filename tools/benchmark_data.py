#!/usr/bin/env python
"""Measure the speed and memory of data preparation: ``python tools/benchmark_data.py --help``."""

import sys

from data_prep.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
