"""Training: collators, the command behind `hf-zoo train`, loss curves."""
