"""What the paper says of US-43d, as far as the catalogue entries do not: applications and totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from data_prep.records import DatasetInfo

# Clinical applications as Table 1 and Figure 2 name them; STU-Hospital is filed under "other" there.
APPLICATIONS = {
    "abdomen_us": "abdomen", "acouslic": "fetal abdomen", "asus": "spine", "aul": "liver",
    "brachial_plexus": "plexus", "breast_lesions_usg": "breast lesions", "buid": "breast lesions",
    "bus_bra": "breast lesions", "bus_dataset_b": "breast lesions", "bus_uc": "breast lesions",
    "bus_uclm": "breast lesions", "busi": "breast lesions", "camus": "cardiac", "cardiac_udc": "cardiac",
    "ccaui": "carotid artery", "ddti": "thyroid nodules", "echocp": "Patent Foramen Ovale",
    "echonet_dynamic": "cardiac", "echonet_pediatric": "cardiac", "fallmud": "muscles", "fass": "fetal abdomen",
    "fast_unet": "fetal head", "fh_ps_aop": "fetal head", "gist514_db": "GIST", "hc18": "fetal head",
    "kidney_us": "kidney", "luss_phantom": "artefacts", "microseg": "prostate", "mmotu_2d": "ovarian",
    "mmotu_3d": "ovarian", "mup": "prostate", "regpro": "prostate", "s1": "breast lesions", "segthy": "thyroid",
    "stmus_nda": "muscles", "stu_hospital": "other", "tg3k": "thyroid nodules",
    "thyroid_cineclip": "thyroid nodules", "tn3k": "thyroid nodules", "tnscui": "thyroid nodules",
    "ubpd": "plexus", "us_nerve": "cervical nerves", "us105": "liver",
}  # fmt: skip

# The number in the paper's text; the rows of its Table 1 add up to fewer.
MASKS_IN_TEXT = 282_321


def table1(info: DatasetInfo, known: Iterable[str]) -> tuple[int, int] | None:
    """Return images and masks of the set's row in Table 1; None when it has none of its own.

    Args:
        info: catalogue entry.
        known: slugs of the catalogue; "MUP & MicroSeg" is one row, which counts for the set that is no alias.
    """
    return None if info.alias_of in set(known) else info.table1


def masks_by_application(infos: Iterable[DatasetInfo]) -> Counter[str]:
    """Return the masks of the paper's Figure 2: those of Table 1 by the paper's own applications."""
    entries = list(infos)
    slugs = {info.slug for info in entries}
    total: Counter[str] = Counter()
    for info in entries:
        row = table1(info, slugs)
        if row is not None:
            total[APPLICATIONS.get(info.slug, info.application)] += row[1]
    return total
