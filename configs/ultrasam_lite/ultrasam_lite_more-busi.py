"""As ultrasam_lite.py, longer, and with more of the small sets, of BUSI above all, which LiteMedSAM knows well."""

_base_ = ["./ultrasam_lite.py"]

iterations = 900
repeats = dict(bus_bra=1, busi=8, hc18=4, ccaui=8, bus_uc_sample=6)

train_dataloader = dict(
    dataset=dict(
        datasets=[
            {**part, "times": times}
            for part, times in zip(_base_.train_dataloader.dataset.datasets, repeats.values(), strict=True)
        ]
    )
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=30, end=iterations, eta_min=1e-6),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
