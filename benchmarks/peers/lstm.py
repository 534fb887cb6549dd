"""LSTM (Hochreiter & Schmidhuber 1997): torch's own."""

from torch import Tensor, nn

from benchmarks.peers.base import Peer, State, zeros

UNITS_PER_DIMENSION = 2


class Lstm(Peer):
    """Embedding -> LSTM -> projection -> tied softmax."""

    def __init__(self, vocab_size: int, width: int, dropout: float = 0.0) -> None:
        units = UNITS_PER_DIMENSION * width
        super().__init__(vocab_size, width, units, dropout)
        self.rnn = nn.LSTM(width, units, batch_first=True)
        # A forget gate that starts open (Jozefowicz et al. 2015); torch adds two biases.
        for bias in (self.rnn.bias_ih_l0, self.rnn.bias_hh_l0):
            nn.init.constant_(bias[units : 2 * units], 0.5)

    def start(self, num_streams: int) -> State:
        """h_0 = c_0 = 0."""
        return [zeros(self, num_streams, self.rnn.hidden_size) for _ in range(2)]

    def body(self, x_BTE: Tensor, state: State) -> tuple[Tensor, State]:
        """Run through the window."""
        hidden, (h, c) = self.rnn(x_BTE, (state[0][None], state[1][None]))
        return hidden, [h[0], c[0]]
