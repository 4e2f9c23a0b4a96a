"""Hybrid: any token mixer of the zoo with any channel mixer of the zoo, by layer."""
