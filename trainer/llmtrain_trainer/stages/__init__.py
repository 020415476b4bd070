"""The training processes' side of every stage: what runs under torchrun."""
