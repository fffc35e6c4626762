"""UltraSam-lite, the model that comes with the installation: the third part of its training.

The first two are configs/demo/litemedsam_decoder_bus-bra.py and litemedsam_tail_bus-bra.py (BUS-BRA, folds 2 to 4).
Here BUS-BRA, BUSI, HC18, CCA and BUS-UC are mixed; tools/ultrasam_lite.py makes the files, holds patients out of each
set, and packs the mean of the weights of this training and of ultrasam_lite_more-busi.py, from which the last parts start
(ultrasam_lite_borders.py, ultrasam_lite_boxes.py, ultrasam_lite_teacher.py):

    python -m data_prep prepare data/us43d --source DOWNLOADS
    python tools/ultrasam_lite.py split data/us43d
    python tools/train.py configs/ultrasam_lite/ultrasam_lite.py --amp --cfg-options load_from=CHECKPOINT
    python tools/train.py configs/ultrasam_lite/ultrasam_lite_more-busi.py --amp --cfg-options load_from=CHECKPOINT
    python tools/ultrasam_lite.py pack FIRST SECOND --data data/us43d
"""

_base_ = ["../demo/litemedsam_tail_bus-bra.py"]

iterations = 700
data_root = "{{$ULTRASAM_DATA:data/us43d}}"

train_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(type="FitSquare", square=256, mode="pad", interpolation="area", target_size=256),
    dict(type="SimulatePrompts", point_share=0.6, box_jitter=0.05),
    dict(type="PackPrompted"),
]
# How often an epoch repeats each set: the small ones would drown otherwise.
repeats = dict(bus_bra=1, busi=2, hc18=3, ccaui=6, bus_uc_sample=4)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            dict(
                type="RepeatDataset",
                times=times,
                dataset=dict(
                    type="PromptedCocoDataset",
                    data_root=data_root,
                    ann_file=f"lite/train.{slug}.json",
                    pipeline=train_pipeline,
                    prompt="train",
                    empty="skip",
                ),
            )
            for slug, times in repeats.items()
        ],
    )
)
val_dataloader = dict(dataset=dict(data_root=data_root, ann_file="lite/val.json"))
test_dataloader = dict(dataset=dict(data_root=data_root, ann_file="lite/test.json"))

optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=30, end=iterations, eta_min=1e-6),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
