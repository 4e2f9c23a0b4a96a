"""The dense decoder: GPT-2, LLaMA, Mistral, OLMo, CrystalCoder, BloombergGPT, StarCoder."""
