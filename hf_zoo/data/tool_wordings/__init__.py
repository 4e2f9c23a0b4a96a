"""How tasks of `python-tools` ask for the tools of `tool_functions`, by kind."""

from . import arithmetic, codes, database, dates, documents, pieces, series, texts
from .sorts import Wording

WORDINGS: dict[str, Wording] = {
    name: wording
    for module in (arithmetic, dates, texts, pieces, codes, documents, series, database)
    for name, wording in module.WORDINGS.items()
}
