"""The graph as users meet it: facts in words go in, and change what the model answers without training.

    model.load_graph([("json", "contains", "json.decoder"), ...])
    model.add_edges([("json", "imports", "re")])

Names stand in the config, edges among the weights, so both are saved and shared with the model.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Fact = tuple[str, str, str] | Mapping[str, str]


class HasGraph:
    """Mixin of models with a `KnowledgeGraph`, their own or their trunk's."""

    @property
    def graph(self) -> nn.Module:
        """The knowledge graph."""
        return self.base_model.knowledge

    @torch.no_grad()
    def load_graph(
        self,
        facts: Iterable[Fact],
        entity_names: Iterable[str] | None = None,
        relation_names: Iterable[str] | None = None,
    ) -> None:
        """Replace the graph. Entities and relations whose names it had keep what they learnt, new ones start afresh.

        To be called before an optimiser is made, since their number changes.

        Args:
            facts: (head, relation, tail), or rows with these columns, such as a `datasets.Dataset`.
            entity_names, relation_names: in the order of their numbers; without them those of the facts, sorted.

        Raises:
            ValueError: a fact with a name that is not among those given, names that stand twice, or too few of them.
        """
        facts = [_triple(fact) for fact in facts]
        entities = _names(entity_names, {name for head, _, tail in facts for name in (head, tail)}, "entity")
        relations = _names(relation_names, {relation for _, relation, _ in facts}, "relation")
        if len(entities) < self.config.num_linked:
            raise ValueError(
                f"a graph of {len(entities)} entities is too small for num_linked={self.config.num_linked}"
            )
        if wrong := [r for r in self.config.taxonomy_relations if r >= len(relations)]:
            raise ValueError(f"taxonomy_relations holds {wrong[0]}, and there are {len(relations)} relations")
        edges = _numbers(facts, entities, relations)
        graph, config = self.graph, self.config
        _resize(graph, "entities", config.entity_names, entities)
        _resize(graph, "relations", config.relation_names, relations)
        for layer in graph.layers:
            _resize(layer, "coefficients", config.relation_names, relations)
        config.num_entities, config.num_relations = len(entities), len(relations)
        config.entity_names, config.relation_names = entities, relations
        self._set_edges(edges)

    def add_edges(self, facts: Iterable[Fact]) -> int:
        """Add facts about known entities; how many were new.

        Raises:
            ValueError: an entity or relation that the graph does not have, with the nearest name.
        """
        edges = self.graph.edges
        known = set(map(tuple, edges.T.tolist()))
        new = [edge for edge in self._numbered(facts) if edge not in known]
        self._set_edges(torch.cat((edges, _columns(new).to(edges.device)), dim=1))
        return len(new)

    def remove_edges(self, facts: Iterable[Fact]) -> None:
        """Take facts out of the graph.

        Raises:
            ValueError: a fact that is not in it, or an entity or relation that it does not have.
        """
        wanted = set(self._numbered(facts))
        edges = self.graph.edges
        present = list(map(tuple, edges.T.tolist()))
        if missing := wanted.difference(present):
            head, relation, tail = min(missing)
            names, relations = self._names_of()
            raise ValueError(f"the graph does not say that {names[head]} {relations[relation]} {names[tail]}")
        kept = torch.tensor([edge not in wanted for edge in present], dtype=torch.bool, device=edges.device)
        self._set_edges(edges[:, kept])

    @torch.no_grad()
    def add_entities(self, names: Iterable[str]) -> None:
        """Add entities without facts. Each starts as the mean of those that are there: its edges will tell what it is.

        Raises:
            ValueError: a name that the graph has.
        """
        names, (known, _) = list(names), self._names_of()
        if twice := set(known).intersection(names):
            raise ValueError(f"the graph has an entity {min(twice)!r} already")
        table = self.graph.entities
        new = table.mean(0, keepdim=True).expand(len(names), -1)
        self.graph.entities = nn.Parameter(torch.cat((table, new)), requires_grad=table.requires_grad)
        self.config.num_entities += len(names)
        self.config.entity_names = known + names

    def entity_id(self, name: str) -> int:
        """The number of an entity.

        Raises:
            ValueError: the graph has none of the name, with the nearest.
        """
        return _find(name, self._names_of()[0], "entity")

    def mention_ids(self, names: Iterable[str | None]) -> Tensor:
        """Names of entities, one a token, None where a token mentions none -> (1, T) of their numbers, -1 for none."""
        known = {name: number for number, name in enumerate(self._names_of()[0])}
        return torch.tensor([[-1 if name is None else _find(name, known, "entity") for name in names]])

    def _names_of(self) -> tuple[list[str], list[str]]:
        names = self.config.entity_names, self.config.relation_names
        if None in names:
            raise ValueError("the graph has no names yet: give it some with load_graph")
        return names

    def _numbered(self, facts: Iterable[Fact]) -> list[tuple[int, int, int]]:
        entities, relations = self._names_of()
        return list(map(tuple, _numbers([_triple(fact) for fact in facts], entities, relations).T.tolist()))

    def _set_edges(self, edges: Tensor) -> None:
        graph = self.graph
        graph.edges = edges.to(graph.edges.device)
        self.config.num_edges = edges.shape[1]


def _triple(fact: Fact) -> tuple[str, str, str]:
    return (fact["head"], fact["relation"], fact["tail"]) if isinstance(fact, Mapping) else tuple(fact)


def _names(given: Iterable[str] | None, found: set[str], kind: str) -> list[str]:
    names = sorted(found) if given is None else list(given)
    if len(set(names)) < len(names):
        raise ValueError(
            f"{kind}_names must differ, and {next(n for n in names if names.count(n) > 1)!r} stands twice"
        )
    return names


def _numbers(facts: list[tuple[str, str, str]], entities: list[str], relations: list[str]) -> Tensor:
    """The edges (3, M) of facts, each once, in their order."""
    entities = {name: number for number, name in enumerate(entities)}
    relations = {name: number for number, name in enumerate(relations)}
    rows = [
        (_find(head, entities, "entity"), _find(relation, relations, "relation"), _find(tail, entities, "entity"))
        for head, relation, tail in facts
    ]
    return _columns(list(dict.fromkeys(rows)))


def _columns(edges: list[tuple[int, int, int]]) -> Tensor:
    return torch.tensor(edges, dtype=torch.long).reshape(-1, 3).T


def _find(name: str, known: Any, kind: str) -> int:
    """The number of a name, in a list of names or a dictionary of their numbers."""
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
        raise ValueError(f"the graph has no {kind} {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
    return known[name] if isinstance(known, dict) else known.index(name)


def _resize(module: nn.Module, name: str, before: list[str] | None, after: list[str]) -> None:
    """A table with one row a name, of which known ones keep theirs."""
    table = getattr(module, name)
    rows = table.new_empty(len(after), table.shape[1]).normal_(std=float(table.float().std()))
    old = {name: number for number, name in enumerate(before or ())}
    for number, row_name in enumerate(after):
        if row_name in old:
            rows[number] = table[old[row_name]]
    setattr(module, name, nn.Parameter(rows, requires_grad=table.requires_grad))
