"""`python -m hf_zoo` is `hf-zoo`; `torchrun -m hf_zoo run script.py` starts a script with the zoo registered."""

from .cli import main

if __name__ == "__main__":
    main()
