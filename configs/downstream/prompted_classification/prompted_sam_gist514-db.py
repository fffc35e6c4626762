"""Prompted classification with SAM's weights on GIST514-DB (Table 4); tests with --prompt box, point or centroid.

    python tools/train.py configs/downstream/prompted_classification/prompted_sam_gist514-db.py --weights sam_vit_b_01ec64.pth
    python tools/test.py configs/downstream/prompted_classification/prompted_sam_gist514-db.py CHECKPOINT --prompt box
"""

_base_ = ["./_base_/prompted_classifier.py", "./_base_/gist514_db.py"]

model = dict(classes={{_base_.classes}})
