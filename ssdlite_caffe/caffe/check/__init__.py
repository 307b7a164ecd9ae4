"""What a built Caffe does on this machine's GPU: right, and how fast.

`make gpu-bundle` packs these files with a built Caffe, and they run there from the unpacked bundle, with `python3 -m
check`, where nothing of ours is installed: so they import the standard library and numpy alone, and PyTorch where it is.
"""
