"""MedSAM as it is: whole square, pixels scaled to 0-1, mask token 0; boxes only. Give medsam_vit_b.pth to tools/test.py."""

_base_ = "../ultrasam/ultrasam_vit-b_4xb8-30k_us43d.py"

model = dict(passes=["single"], preprocessing=dict(mode="squash", scaling="min_max", interpolation="bicubic"))
square = dict(type="FitSquare", square=1024, mode="squash", interpolation="bicubic")
test_pipeline = [
    dict(type="LoadUltrasound"),
    square,
    dict(type="SimulatePrompts"),
    dict(type="PackPrompted"),
]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadUltrasound"),
            dict(type="FlipHorizontal", prob=0.5),
            dict(target_size=256, **square),
            dict(type="SimulatePrompts", point_share=0.0),
            dict(type="PackPrompted"),
        ]
    )
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, prompt="box"))
test_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(
                type="PromptedCocoDataset",
                data_root="{{$ULTRASAM_DATA:data/us43d}}",
                ann_file=f"{slug}/annotations/test.{slug}.agnostic.json",
                pipeline=test_pipeline,
                prompt="box",
                test_mode=True,
            )
            for slug in ("bus_bra", "mmotu_2d", "gist514_db")
        ]
    )
)
