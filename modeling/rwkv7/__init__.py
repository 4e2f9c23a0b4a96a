"""RWKV-7: a recurrent network whose memory follows the generalised delta rule."""
