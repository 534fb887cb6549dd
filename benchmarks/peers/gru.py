"""GRU (Cho et al. 2014): torch's own."""

from torch import Tensor, nn

from benchmarks.peers.base import Peer, State, zeros

# Units for each embedded dimension: more memory than tied embeddings of that size would allow.
UNITS_PER_DIMENSION = 2


class Gru(Peer):
    """Embedding -> GRU -> projection -> tied softmax."""

    def __init__(self, vocab_size: int, width: int, dropout: float = 0.0) -> None:
        units = UNITS_PER_DIMENSION * width
        super().__init__(vocab_size, width, units, dropout)
        self.rnn = nn.GRU(width, units, batch_first=True)

    def start(self, num_streams: int) -> State:
        """h_0 = 0."""
        return [zeros(self, num_streams, self.rnn.hidden_size)]

    def body(self, x_BTE: Tensor, state: State) -> tuple[Tensor, State]:
        """Run through the window."""
        hidden, last = self.rnn(x_BTE, state[0][None])
        return hidden, [last[0]]
