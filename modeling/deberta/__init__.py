"""DeBERTa: an encoder whose attention keeps content and relative position apart."""
