"""Why a COCO file or a folder of images and masks will fail in training, and the repaired copy."""
