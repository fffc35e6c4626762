#!/usr/bin/env python
"""Reproduce a table or figure of the paper: ``python tools/reproduce.py --help``."""

import sys

from ultrasam.reproduce.command import main

if __name__ == "__main__":
    sys.exit(main())
