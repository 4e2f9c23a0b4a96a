"""RETRO: a decoder that attends to what was retrieved for each chunk of its text."""
