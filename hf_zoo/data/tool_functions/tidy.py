"""Numbers that every machine writes alike."""


def tidy(number: float) -> float:
    """Without the noise of binary fractions, which no answer should depend on."""
    return round(number, 6) if isinstance(number, float) else number
