"""BigBird uses evidence 4,000 tokens away, where a BERT cut to 512 tokens is at chance.

Zaheer et al. 2020, section 4: longer contexts raise accuracy where the evidence is far apart. The task is that of
longformer.py; the evidence reaches the first token through global blocks.
"""

from longformer import run

from hf_zoo.claims import Claim

if __name__ == "__main__":
    blocks = {"block_size": 32, "num_random_blocks": 1}
    run(Claim("bigbird", "Zaheer et al. 2020"), "BigBird", "bigbird-tiny", steps=600, **blocks)
