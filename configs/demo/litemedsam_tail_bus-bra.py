"""Second part of training on BUS-BRA: the encoder's last blocks and neck train too, with mirrored images.

Starts from the result of the first part, litemedsam_decoder_bus-bra.py. What the frozen stages of the encoder give is
kept on disk (2.6 MB an image), so a step costs less than twice that of the decoder alone:

    python tools/train.py configs/demo/litemedsam_tail_bus-bra.py --amp --cfg-options load_from=CHECKPOINT
"""

_base_ = ["./litemedsam_decoder_bus-bra.py"]

iterations = 1600

train_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(type="FitSquare", square=256, mode="pad", interpolation="area", target_size=256),
    dict(type="SimulatePrompts", point_share=0.6, box_jitter=0.05),
    dict(type="PackPrompted"),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))

# The neck and the last two blocks. The started weights already have all mask tokens.
model = dict(trained_stages=3, copy_single_mask_token=False, loss=dict(iou=2.0))
optim_wrapper = dict(
    optimizer=dict(lr=1.5e-4), paramwise_cfg=dict(custom_keys={"sam.image_encoder": dict(lr_mult=0.3)})
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=iterations, eta_min=1e-6),
]
train_cfg = dict(max_iters=iterations, val_interval=400)
