"""GIST514-DB: leiomyomas and stromal tumours, split 0 of its authors; the class of each image.

Images without a lesion have no class and are left out. Prepared with `python -m data_prep convert gist514_db`.
All else is as for BUS-BRA.
"""

_base_ = "./bus_bra.py"

classes = ["lmym", "gist"]

train_dataloader = dict(
    dataset=dict(ann_file="gist514_db/annotations/train.gist514_db.json", classes=classes, unlabelled="skip")
)
val_dataloader = dict(
    dataset=dict(ann_file="gist514_db/annotations/val.gist514_db.json", classes=classes, unlabelled="skip")
)
test_dataloader = dict(
    dataset=dict(ann_file="gist514_db/annotations/test.gist514_db.json", classes=classes, unlabelled="skip")
)
