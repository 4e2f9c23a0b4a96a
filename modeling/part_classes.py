"""Configs and models that a composite model may be made of, where transformers' Auto classes do not know them.

Empty where the package is installed, for there they do. Code that was exported to a checkpoint comes with a filled
one, because Auto classes refuse code from the Hub inside another model.
"""

CLASSES = {}  # model_type -> {"AutoConfig": class, "AutoModel": class, ...}
