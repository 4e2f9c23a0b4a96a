"""BigBird: attention to global, neighbouring and random blocks."""
