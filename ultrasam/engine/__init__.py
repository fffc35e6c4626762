"""Runner, hooks, distributed and precision set-up, and the mmcv stand-ins."""
