"""Large concept model: a decoder that reads and writes concepts of a knowledge graph."""
