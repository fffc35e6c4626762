"""UltraSam as it was released: squared IoU error, clicks refined by box, masks thresholded before they are enlarged.

Expects UltraSam.pth, for testing it the way the published tables were made; the masks are larger than the truth.
"""

_base_ = "ultrasam_vit-b_4xb8-30k_us43d.py"

model = dict(refine_with_box=True, mask_order="released", loss=dict(iou_form="mse"))
