"""A user's own folders of images and masks: into the collection, and back."""
