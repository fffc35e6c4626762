"""The phantom at 256 pixels, made with `ultrasam phantom data/phantom`; all else is as for BUS-BRA.

ULTRASAM_PHANTOM names the folder; without it, data/phantom below the working directory.
"""

_base_ = "bus_bra_256.py"

data_root = "{{$ULTRASAM_PHANTOM:data/phantom}}"

train_dataloader = dict(dataset=dict(data_root=data_root, ann_file="train.agnostic.json"))
val_dataloader = dict(dataset=dict(data_root=data_root, ann_file="val.agnostic.json"))
test_dataloader = dict(dataset=dict(data_root=data_root, ann_file="test.agnostic.json"))
