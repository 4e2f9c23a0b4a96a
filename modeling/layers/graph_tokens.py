"""A graph as tokens: one a node and one an edge, which say by identifiers which nodes they are of.

Kim et al. 2022, https://arxiv.org/abs/2207.02505, section 2.2. Every node v has an identifier P_v, and

    node v       W f_v + Q [P_v; P_v] + e_node
    edge (u, v)  W' f_uv + Q [P_u; P_v] + e_edge

so that attention finds what belongs together by the products of identifiers. They are orthonormal and random, drawn
anew at each step of training; or eigenvectors of the normalised Laplacian, of the lowest eigenvalues, whose sign is
random in training and else such that the sum of cubes is positive.

Shapes: B graphs, N nodes, E edges, P identifier size, D hidden size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

_BEYOND_ALL = 3.0  # eigenvalues of a normalised Laplacian are 2 at most


def orthonormal(
    num_graphs: int, size: int, device: torch.device | str = "cpu", generator: torch.Generator | None = None
) -> Tensor:
    """Rotations and reflections (B, P, P), none likelier than another; their rows are orthonormal, in float32."""
    normal = torch.randn(num_graphs, size, size, dtype=torch.float32, device=device, generator=generator)
    q, r = torch.linalg.qr(normal)
    return q * torch.diagonal(r, dim1=-2, dim2=-1).sign()[:, None]


def laplacian_vectors(edge_index: Tensor, node_mask: Tensor, size: int) -> Tensor:
    """Eigenvectors (B, N, P) of L = I - D^{-1/2} A D^{-1/2}, those of the lowest eigenvalues first, zero beyond N.

    Args:
        edge_index: (B, E, 2), -1 where there is no edge; directions do not count.
        node_mask: (B, N), true on real nodes.
        size: P.
    """
    num_graphs, num_nodes = node_mask.shape
    is_real = edge_index[..., 0] >= 0
    pairs = edge_index.clamp_min(0)
    places = torch.cat((pairs[..., 0] * num_nodes + pairs[..., 1], pairs[..., 1] * num_nodes + pairs[..., 0]), dim=1)
    ones = is_real.float().repeat(1, 2)
    adjacency = ones.new_zeros(num_graphs, num_nodes * num_nodes).scatter_reduce(1, places, ones, "amax")
    adjacency = adjacency.view(num_graphs, num_nodes, num_nodes)
    scale = adjacency.sum(-1).clamp_min(1).rsqrt()
    diagonal = torch.where(node_mask, 1.0, _BEYOND_ALL)  # vectors of padding come last
    vectors = torch.linalg.eigh(torch.diag_embed(diagonal) - scale[:, :, None] * adjacency * scale[:, None])[1]
    vectors = vectors[..., :size] * node_mask[..., None]
    return F.pad(vectors, (0, size - vectors.shape[-1]))


class GraphTokens(nn.Module):
    """Nodes, then edges.

    Args:
        node_size: numbers that describe a node.
        edge_size: numbers that describe an edge; 0 for none.
        identifier_size: P.
        identifiers: "random" or "laplacian".
        hidden_size: D.
    """

    def __init__(
        self, node_size: int, edge_size: int, identifier_size: int, identifiers: str, hidden_size: int
    ) -> None:
        super().__init__()
        self.is_random = identifiers == "random"
        self.identifier_size = identifier_size
        self.node_proj = nn.Linear(node_size, hidden_size)
        self.edge_proj = nn.Linear(edge_size, hidden_size) if edge_size else None
        self.identifier_proj = nn.Linear(2 * identifier_size, hidden_size, bias=False)
        self.embed_types = nn.Embedding(2, hidden_size)
        self.register_buffer("fixed", torch.empty(identifier_size, identifier_size), persistent=False)
        self._fill()

    @torch.no_grad()
    def initialise(self) -> None:
        """The identifiers out of training, which no checkpoint holds."""
        self._fill()

    def _fill(self) -> None:
        init.copy_(self.fixed, orthonormal(1, self.identifier_size, generator=torch.Generator().manual_seed(0))[0])

    def forward(
        self,
        node_values: Tensor,
        edge_index: Tensor,
        edge_values: Tensor | None = None,
        node_mask: Tensor | None = None,
        node_identifiers: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, N + E, D) and their mask (B, N + E).

        Args:
            node_values: (B, N, node_size).
            edge_index: (B, E, 2), nodes that an edge joins; -1 where there is none. Each edge once.
            edge_values: (B, E, edge_size).
            node_mask: (B, N) with 1 on real nodes; None where all are.
            node_identifiers: (B, N, P); made here without it.

        Raises:
            ValueError: shapes do not fit, or there are more nodes than random identifiers.
        """
        self._check(node_values, edge_index, edge_values)
        num_graphs, num_nodes = node_values.shape[:2]
        if node_mask is None:
            node_mask = node_values.new_ones(num_graphs, num_nodes)
        node_mask = node_mask.bool()
        if node_identifiers is None:
            node_identifiers = self.identify(edge_index, node_mask)
        dtype = self.node_proj.weight.dtype
        identifiers = node_identifiers.to(dtype)
        types = self.embed_types.weight
        nodes = self.node_proj(node_values.to(dtype)) + self.identifier_proj(identifiers.repeat(1, 1, 2)) + types[0]
        rows = torch.arange(num_graphs, device=edge_index.device)[:, None, None]
        ends = identifiers[rows, edge_index.clamp_min(0)].flatten(2)  # (B, E, 2 P)
        edges = self.identifier_proj(ends) + types[1]
        if self.edge_proj is not None:
            edges = edges + self.edge_proj(edge_values.to(dtype))
        mask = torch.cat((node_mask, edge_index[..., 0] >= 0), dim=1)
        return torch.cat((nodes, edges), dim=1), mask.long()

    def identify(self, edge_index: Tensor, node_mask: Tensor) -> Tensor:
        """Identifiers (B, N, P) of nodes; edge_index (B, E, 2), node_mask (B, N)."""
        num_graphs, num_nodes = node_mask.shape
        if self.is_random:
            if num_nodes > self.identifier_size:
                raise ValueError(
                    f"a graph of {num_nodes} nodes needs as many orthonormal identifiers, and identifier_size is "
                    f'{self.identifier_size}: make it larger, or choose identifiers="laplacian"'
                )
            if not self.training:
                return self.fixed[:num_nodes].expand(num_graphs, -1, -1)
            return orthonormal(num_graphs, self.identifier_size, node_mask.device)[:, :num_nodes]
        vectors = laplacian_vectors(edge_index, node_mask, self.identifier_size)
        if self.training:
            signs = torch.randint_like(vectors[:, :1], 0, 2) * 2 - 1
        else:
            signs = torch.where(vectors.pow(3).sum(1, keepdim=True) < 0, -1.0, 1.0)
        return vectors * signs

    def _check(self, node_values: Tensor | None, edge_index: Tensor | None, edge_values: Tensor | None) -> None:
        if node_values is None or edge_index is None:
            raise ValueError("a graph needs node_values and edge_index")
        sizes = {"node": self.node_proj.in_features, "edge": self.edge_proj.in_features if self.edge_proj else 0}
        if node_values.ndim != 3 or node_values.shape[2] != sizes["node"]:
            raise ValueError(f"node_values must be (graphs, nodes, {sizes['node']}), got {tuple(node_values.shape)}")
        if edge_index.ndim != 3 or edge_index.shape[2] != 2:
            raise ValueError(f"edge_index must be (graphs, edges, 2), got {tuple(edge_index.shape)}")
        if bool(sizes["edge"]) != (edge_values is not None):
            raise ValueError(
                f"edge_size is {sizes['edge']}, so edge_values must be {'given' if sizes['edge'] else 'None'}"
            )
        if edge_values is not None and tuple(edge_values.shape) != (*edge_index.shape[:2], sizes["edge"]):
            raise ValueError(f"edge_values must be (graphs, edges, {sizes['edge']}), got {tuple(edge_values.shape)}")
