"""Fine-tuning without knowing MMDetection: from a folder and weights to a configuration, a training and its tests."""
