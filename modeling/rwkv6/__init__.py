"""RWKV-6, and RWKV-5: recurrent networks with a matrix memory that decays."""
