#!/usr/bin/env python
"""Measure how long answers to prompts take: ``python tools/benchmark_predict.py --help``."""

import sys

from ultrasam.inference.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
