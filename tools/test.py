#!/usr/bin/env python
"""Test a model: ``python tools/test.py --help``."""

import sys

from ultrasam.engine.test import main

if __name__ == "__main__":
    sys.exit(main())
