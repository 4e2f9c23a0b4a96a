"""The tools of `python-tools`: functions over the standard library and a small SQLite database, by kind.

Every function takes and returns what JSON holds, touches no file and no network, and says the same on every machine.
"""

from . import arithmetic, codes, database, dates, documents, pieces, series, texts

MODULES = (arithmetic, dates, texts, pieces, codes, documents, series, database)
