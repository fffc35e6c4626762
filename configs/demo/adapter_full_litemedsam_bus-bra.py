"""The ways to adapt LiteMedSAM on BUS-BRA: everything trains. SAMUS is made of SAM's ViT and does not fit.

LiteMedSAM knows boxes only, so prompt encoder and decoder learn points with every method.
"""

_base_ = ["litemedsam_decoder_bus-bra.py"]

train_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(type="FitSquare", square=256, mode="pad", interpolation="area", target_size=256),
    dict(type="SimulatePrompts", point_share=0.5, box_jitter=0.05),
    dict(type="PackPrompted"),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
# The embeddings of a frozen encoder would be kept on disk and make its steps look cheaper than they are.
model = dict(method="full", freeze=[], cache_dir=None)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
custom_hooks = [dict(type="WeightFileHook")]
