#!/usr/bin/env python
"""Train a model: ``python tools/train.py --help``."""

import sys

from ultrasam.engine.train import main

if __name__ == "__main__":
    sys.exit(main())
