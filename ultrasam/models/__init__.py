"""The MMDetection side: detector and data preprocessor, thin around ``ultrasam.modeling``."""
