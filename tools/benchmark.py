#!/usr/bin/env python
"""Measure speed and memory: ``python tools/benchmark.py --help``."""

import sys

from ultrasam.engine.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
