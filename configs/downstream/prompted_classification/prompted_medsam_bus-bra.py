"""Prompted classification with MedSAM's weights on BUS-BRA (Table 4); tests with --prompt box, point or centroid.

    python tools/train.py configs/downstream/prompted_classification/prompted_medsam_bus-bra.py --weights medsam_vit_b.pth
    python tools/test.py configs/downstream/prompted_classification/prompted_medsam_bus-bra.py CHECKPOINT --prompt box
"""

_base_ = ["./_base_/prompted_classifier.py", "./_base_/bus_bra.py"]

model = dict(classes={{_base_.classes}})
