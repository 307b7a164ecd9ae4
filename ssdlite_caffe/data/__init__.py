"""Annotated images: Pascal VOC, COCO, LMDB, drawn scenes."""
