"""MMOTU2D: eight kinds of ovaries, the official lists; the class of each object.

Prepared with `python -m data_prep convert mmotu_2d`. All else is as for BUS-BRA.
"""

_base_ = "./bus_bra.py"

classes = [
    "chocolate_cyst", "serous_cystadenoma", "teratoma", "theca_cell_tumor", "simple_cyst", "normal_ovary",
    "mucinous_cystadenoma", "high_grade_serous",
]

train_dataloader = dict(
    dataset=dict(ann_file="mmotu_2d/annotations/train.mmotu_2d.json", classes=classes)
)
val_dataloader = dict(
    dataset=dict(ann_file="mmotu_2d/annotations/val.mmotu_2d.json", classes=classes)
)
test_dataloader = dict(
    dataset=dict(ann_file="mmotu_2d/annotations/test.mmotu_2d.json", classes=classes)
)
