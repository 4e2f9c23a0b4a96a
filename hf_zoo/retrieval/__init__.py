"""Finding passages: an index of vectors from any encoder, BM25 beside it, and measures of both.

    encoder = TextEncoder.from_pretrained("folder-or-hub-name")
    index = build_index(dataset, encoder, "index")        # with progress; the same call resumes after a kill
    hits = index.search(["how do I open a file?"], k=5)   # a list of `Hit` for each question

`PassageIndex.open("index")` opens it again, `index.add` and `index.delete` change it, `index.approximate` makes it
fast at size, `ServerIndex` keeps it in a vector database in place of a folder.
"""

from .bm25 import Bm25
from .dpr_folders import open_dpr, open_dpr_reader
from .encoder import TextEncoder
from .evaluation import evaluate
from .index import Hit, PassageIndex, build_index
from .retro import ChunkDatabase, add_neighbours, build_chunks
from .server import ServerIndex

__all__ = [
    "Bm25",
    "ChunkDatabase",
    "Hit",
    "PassageIndex",
    "ServerIndex",
    "TextEncoder",
    "add_neighbours",
    "build_chunks",
    "build_index",
    "evaluate",
    "open_dpr",
    "open_dpr_reader",
]
