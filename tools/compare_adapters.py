#!/usr/bin/env python
"""Compare the ways to adapt SAM on BUS-BRA: ``python tools/compare_adapters.py --help``."""

import sys

from ultrasam.finetune.compare_methods import main

if __name__ == "__main__":
    sys.exit(main())
