"""Reading of image and mask files."""
