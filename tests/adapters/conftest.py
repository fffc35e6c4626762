"""Makes the detector's small batches and the toys importable by name."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
for folder in ("models", "engine", "adapters"):
    sys.path.insert(0, str(TESTS / folder))
