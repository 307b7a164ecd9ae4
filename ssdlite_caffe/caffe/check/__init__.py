"""What a built Caffe does on this machine's GPU: right, and how fast.

`caffe bundle --check` packs these files with a built Caffe. They run from the unpacked bundle, with `python3 -m check`,
where nothing of ours is installed: so they import the standard library and numpy alone, and PyTorch where it is.
"""
