"""Makes the toys importable by name, also in the processes that tests start."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from ultrasam.engine import mmcv_ext

# Another test file may have brought MMDetection's registries, whose look-ups import everything.
mmcv_ext.install()
