"""`hf-zoo index`: build, search, measure and change an index of passages."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..retrieval import PassageIndex

index_app = typer.Typer(help="Index passages by meaning, and find them.", no_args_is_help=True)

FOLDER = Annotated[Path, typer.Argument(help="Folder of the index, or of a model that has one.")]
SPLIT = Annotated[str, typer.Option(help="Split of the dataset, in the words of datasets.")]
BATCH = Annotated[int, typer.Option(min=1, help="Texts that are encoded at once.")]


@index_app.command("build")
def build(
    dataset: Annotated[str, typer.Argument(help="Built-in name, file, folder or Hub name.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write; new, empty, or half built by the same command.")],
    encoder: Annotated[str, typer.Option(help="Model that makes the vectors: a folder or Hub name.")],
    column: Annotated[str, typer.Option(help="Column to encode.")] = "text",
    title_column: Annotated[str | None, typer.Option(help="Column to put before it.")] = None,
    split: SPLIT = "train",
    pooling: Annotated[str | None, typer.Option(help="own, mean, cls, last or pooler.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the stored vectors: float32 or float16.")] = "float32",
    batch_size: BATCH = 32,
) -> None:
    """Encode a column of a dataset; the same command goes on with a build that was cut off."""
    from ..data import load_dataset
    from ..retrieval import TextEncoder, build_index

    passages = load_dataset(dataset, split)
    text_encoder = TextEncoder.from_pretrained(encoder, pooling=pooling)
    index = build_index(passages, text_encoder, folder, column, title_column, dtype, batch_size)
    typer.echo(f"{len(index)} passages in {index.folder}")


@index_app.command("add")
def add(
    folder: FOLDER,
    dataset: Annotated[str, typer.Argument(help="Built-in name, file, folder or Hub name.")],
    split: SPLIT = "train",
    batch_size: BATCH = 32,
) -> None:
    """Encode more passages into an index."""
    from ..data import load_dataset

    index = _open(folder)
    index.add(load_dataset(dataset, split), batch_size)
    typer.echo(f"{len(index)} passages in {index.folder}")


@index_app.command("delete")
def delete(
    folder: FOLDER, numbers: Annotated[list[int], typer.Argument(help="Numbers of passages, as search shows them.")]
) -> None:
    """Let passages never be found again."""
    from ..retrieval import PassageIndex

    index = PassageIndex.open(folder)
    index.delete(numbers)
    typer.echo(f"{len(index)} passages in {index.folder}")


@index_app.command("approximate")
def approximate(folder: FOLDER, kind: Annotated[str, typer.Argument(help="ivf or hnsw.")]) -> None:
    """Search fast and not quite exactly from now on."""
    from ..retrieval import PassageIndex

    index = PassageIndex.open(folder)
    index.approximate(kind)
    typer.echo(f"{index.folder} is now searched by {kind}")


@index_app.command("search")
def search(
    folder: FOLDER,
    questions: Annotated[list[str], typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Passages for each.")] = 5,
) -> None:
    """Show the best passages for each question."""
    from rich.console import Console
    from rich.table import Table

    index = _open(folder)
    column = index.column
    console = Console()
    for question, hits in zip(questions, index.search(questions, k), strict=True):
        table = Table("number", "score", column, title=question)
        for hit in hits:
            text = " ".join(str(hit.passage[column]).split())
            table.add_row(str(hit.number), f"{hit.score:.3f}", text[:200])
        console.print(table)


@index_app.command("eval")
def evaluate_command(
    folder: FOLDER,
    dataset: Annotated[str, typer.Argument(help="Questions: built-in name, file, folder or Hub name.")],
    question_column: Annotated[str, typer.Option(help="Column with the questions.")] = "question",
    key: Annotated[str, typer.Option(help="Column that a question shares with the passages that answer it.")] = "id",
    split: SPLIT = "test",
    bm25: Annotated[bool, typer.Option("--bm25", help="Measure BM25 over the same passages, too.")] = False,
) -> None:
    """Measure recall and MRR on questions whose passages are known."""
    from rich.console import Console
    from rich.table import Table

    from ..data import load_dataset
    from ..retrieval import Bm25, evaluate
    from ..retrieval.checks import check_columns
    from ..retrieval.evaluation import numbers_by_key

    index = _open(folder)
    asked = load_dataset(dataset, split)
    check_columns(asked, question_column, key)
    questions = asked[question_column][:]
    passages = index.passages()
    relevant = numbers_by_key(passages, index.numbers(), key, asked[key])
    rows = {"index": index.search_vectors(index.encoder.questions(questions), 20)[1]}
    if bm25:
        rows["BM25"] = index.numbers()[Bm25(passages[index.column]).search(questions, 20)[1]]
    table = Table("search", "recall@1", "recall@5", "recall@20", "mrr@20", title=f"{len(questions)} questions")
    for name, found in rows.items():
        table.add_row(name, *(f"{value:.3f}" for value in evaluate(found, relevant).values()))
    Console().print(table)


def _open(folder: Path) -> "PassageIndex":
    """An index with the encoder that made it."""
    from ..retrieval import PassageIndex, TextEncoder

    made_by = PassageIndex.open(folder).encoder_description
    settings = {name: made_by[name] for name in ("pooling", "max_length", "is_normalised")}
    return PassageIndex.open(folder, TextEncoder.from_pretrained(made_by["name"], **settings))
