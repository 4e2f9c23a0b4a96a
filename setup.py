"""Packages: `modeling/` and `tokenization/` stand at the top of the tree and import as sub-packages of hf_zoo."""

from setuptools import find_packages, setup

ROOTS = {"hf_zoo": "hf_zoo", "hf_zoo.modeling": "modeling", "hf_zoo.tokenization": "tokenization"}
packages = [p for name, path in ROOTS.items() for p in [name, *(f"{name}.{sub}" for sub in find_packages(path))]]
setup(packages=packages, package_dir=ROOTS, package_data={"hf_zoo.modeling": ["*/README.md"]})
