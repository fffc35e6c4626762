"""Transforms between an image and the network square, masks, and RLE."""
