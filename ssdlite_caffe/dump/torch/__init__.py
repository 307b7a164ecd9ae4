"""Models of PyTorch: state_dicts in .pth, .pt and .safetensors files, read without PyTorch."""
