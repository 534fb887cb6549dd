"""GRU (Cho et al. 2014): torch's own."""

from torch import Tensor, nn

from benchmarks.peers.base import Peer, State, zeros


class Gru(Peer):
    """Embedding -> GRU -> projection -> tied softmax."""

    # Units for each embedded dimension.
    shapes = ("2", "1")

    def __init__(self, vocab_size: int, width: int, *, shape: str, **dropouts: float) -> None:
        units = int(shape) * width
        super().__init__(vocab_size, width, units, **dropouts)
        self.rnn = nn.GRU(width, units, batch_first=True)

    def start(self, num_streams: int) -> State:
        """h_0 = 0."""
        return [zeros(self, num_streams, self.rnn.hidden_size)]

    def body(self, x_BTE: Tensor, state: State) -> tuple[Tensor, State]:
        """Run through the window."""
        hidden, last = self.rnn(x_BTE, state[0][None])
        return hidden, [last[0]]
