"""minGRU (Feng et al. 2024, "Were RNNs All We Needed?", arXiv 2410.01201).

The gate and the candidate depend on the token only, so the recurrence is linear in the state:

    z_t = σ(W_z x_t)      h̃_t = g(W_h x_t)      h_t = (1 - z_t) h_{t-1} + z_t h̃_t

with g(x) = x + 0.5 for x >= 0 and σ(x) below (their appendix B.3). For language they stack layers:
a causal depthwise convolution over four tokens, the minGRU and a two-layer network, with residuals.

Shapes: B streams, T tokens of a window, E width, H = 2 E units.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.base import Peer, State, zeros

UNITS_PER_DIMENSION = 2
KERNEL = 4


def scan_sequentially(keep_BTH: Tensor, add_BTH: Tensor, start_BH: Tensor) -> Tensor:
    """`h_t = keep_t h_{t-1} + add_t` for t = 1..T, one step after another: [B, T, H]."""
    h_BH, states = start_BH, []
    for keep, add in zip(keep_BTH.unbind(1), add_BTH.unbind(1), strict=True):
        h_BH = torch.addcmul(add, keep, h_BH)
        states.append(h_BH)
    return torch.stack(states, dim=1)


def scan_in_parallel(keep_BTH: Tensor, add_BTH: Tensor, start_BH: Tensor) -> Tensor:
    """The same in log2(T) steps: an associative scan (Hillis & Steele 1986)."""
    first = torch.addcmul(add_BTH[:, :1], keep_BTH[:, :1], start_BH[:, None])
    add_BTH = torch.cat([first, add_BTH[:, 1:]], dim=1)
    span = 1
    while span < keep_BTH.shape[1]:
        later = torch.addcmul(add_BTH[:, span:], keep_BTH[:, span:], add_BTH[:, :-span])
        add_BTH = torch.cat([add_BTH[:, :span], later], dim=1)
        keep_BTH = torch.cat([keep_BTH[:, :span], keep_BTH[:, span:] * keep_BTH[:, :-span]], dim=1)
        span *= 2
    return add_BTH


def candidate(x: Tensor) -> Tensor:
    """g: positive and continuous, so that states can be summed in log space too."""
    return F.relu(x) + torch.sigmoid(x.clamp(max=0))


class MinGru(Peer):
    """Embedding -> layers -> LayerNorm -> projection -> tied softmax."""

    # Layers.
    shapes = ("2", "3")

    def __init__(self, vocab_size: int, width: int, *, shape: str, **dropouts: float) -> None:
        super().__init__(vocab_size, width, width, **dropouts)
        self.layers = nn.ModuleList(_Layer(width, self.dropout.p) for _ in range(int(shape)))
        self.norm = nn.LayerNorm(width)

    def start(self, num_streams: int) -> State:
        """For each layer h_0 = 0, and zeros as the tokens before the first."""
        units = UNITS_PER_DIMENSION * self.width
        shapes = [(num_streams, units), (num_streams, KERNEL - 1, self.width)] * len(self.layers)
        return [zeros(self, *shape) for shape in shapes]

    def body(self, x_BTE: Tensor, state: State) -> tuple[Tensor, State]:
        """Read the window layer by layer."""
        last: State = []
        for number, layer in enumerate(self.layers):
            x_BTE, *of_layer = layer(x_BTE, *state[2 * number : 2 * number + 2])
            last += of_layer
        return self.norm(x_BTE), last


class _Layer(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        units = UNITS_PER_DIMENSION * width
        self.norm_conv, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.kernel = nn.Parameter(torch.zeros(KERNEL, width))
        nn.init.ones_(self.kernel[-1])  # starts by passing the token on
        self.gates = nn.Linear(width, 2 * units)
        self.down = nn.Linear(units, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_BTE: Tensor, h_BH: Tensor, before_BKE: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        length = x_BTE.shape[1]
        padded = torch.cat([before_BKE, self.norm_conv(x_BTE)], dim=1)
        mixed = sum(padded[:, k : k + length] * self.kernel[k] for k in range(KERNEL))
        gate, value = self.gates(mixed).float().chunk(2, dim=-1)
        z = torch.sigmoid(gate)
        # On a processor the steps are so cheap that log2(T) passes over the window cost more.
        scan = scan_in_parallel if x_BTE.is_cuda else scan_sequentially
        hidden_BTH = scan(1 - z, z * candidate(value), h_BH)
        x_BTE = x_BTE + self.dropout(self.down(hidden_BTH))
        x_BTE = x_BTE + self.dropout(self.mlp(self.norm_mlp(x_BTE)))
        return x_BTE, hidden_BTH[:, -1], padded[:, length:]
