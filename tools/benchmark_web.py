#!/usr/bin/env python
"""Time clicks on the page over HTTP: ``python tools/benchmark_web.py --help``."""

import sys

from ultrasam.web.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
