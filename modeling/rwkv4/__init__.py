"""RWKV-4: a recurrent network that trains like a transformer."""
