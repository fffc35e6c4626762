"""Full size on a small machine: the annotation file of 187,000 images, a tiny network, pixels made on the fly.

    python tools/benchmark_scale.py

makes the file, trains with two processes, and prints the memory over time.
"""

_base_ = "../demo/ultrasam_vit-tiny_phantom.py"

data_root = "{{$ULTRASAM_DATA:data/us43d}}"
iterations = 200
square = dict(type="FitSquare", square=64, mode="pad", interpolation="bilinear")
train_pipeline = [
    dict(type="MakeUltrasound"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(target_size=16, **square),
    dict(type="SimulatePrompts", point_share=0.5, box_jitter=0.05),
    dict(type="PackPrompted"),
]
test_pipeline = [dict(type="MakeUltrasound"), square, dict(type="SimulatePrompts"), dict(type="PackPrompted")]

model = dict(image_size=64)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    # Neither the largest set alone nor the smallest as often as it.
    sampler=dict(type="MixedSampler", by="dataset", temperature=2),
    dataset=dict(data_root=data_root, ann_file="train.agnostic.json", pipeline=train_pipeline),
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file="val.agnostic.json", pipeline=test_pipeline, indices=8)
)
test_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file="test.agnostic.json", pipeline=test_pipeline, indices=8)
)
custom_hooks = [dict(type="MemoryHook", interval=10), dict(type="PerDatasetHook")]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=iterations))
param_scheduler = [dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=iterations)]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
