#!/usr/bin/env python
"""Measure the speed of the evaluation: ``python tools/benchmark_evaluation.py --help``."""

import sys

from ultrasam.evaluation.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
