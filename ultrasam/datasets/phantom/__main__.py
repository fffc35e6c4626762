"""Run ``python -m ultrasam.datasets.phantom``."""

import sys

from ultrasam.datasets.phantom.cli import main

if __name__ == "__main__":
    sys.exit(main())
