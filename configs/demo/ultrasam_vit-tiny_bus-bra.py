"""The small ViT on BUS-BRA, for the adaptation methods to be compared on real images."""

_base_ = "ultrasam_vit-tiny_phantom.py"

data_root = "{{$ULTRASAM_DATA:data/us43d}}"
folder = "bus_bra/annotations"

train_dataloader = dict(dataset=dict(data_root=data_root, ann_file=f"{folder}/train.bus_bra.agnostic.json"))
val_dataloader = dict(dataset=dict(data_root=data_root, ann_file=f"{folder}/val.bus_bra.agnostic.json"))
test_dataloader = dict(dataset=dict(data_root=data_root, ann_file=f"{folder}/test.bus_bra.agnostic.json"))
