"""The network of SAM in pure PyTorch, one module per box of the paper's figure."""
