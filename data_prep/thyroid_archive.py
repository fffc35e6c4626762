"""What the sets of the TN3K archive (tn3k, tg3k, ddti) and tnscui share."""

from __future__ import annotations

# The README of the authors' repository links to one archive that holds all three sets.
ARCHIVE_ACCESS = ("TN3K.zip, linked from the README of the repository, holds the folders tn3k, tg3k and "
                  "DDTI dataset (with DDTI.zip inside)")
ARCHIVE_NAMES = ("*tn3k*", "thyroid dataset*", "thyroid_dataset*")
