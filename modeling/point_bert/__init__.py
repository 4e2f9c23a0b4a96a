"""Point-BERT: a transformer over groups of points, the 3D encoder of ULIP and ULIP-2."""
