"""LSTM (Hochreiter & Schmidhuber 1997): torch's own."""

from torch import Tensor, nn

from benchmarks.peers.base import Peer, State, zeros


class Lstm(Peer):
    """Embedding -> LSTM -> projection -> tied softmax."""

    # Units for each embedded dimension.
    shapes = ("2", "1")

    def __init__(self, vocab_size: int, width: int, *, shape: str, **dropouts: float) -> None:
        units = int(shape) * width
        super().__init__(vocab_size, width, units, **dropouts)
        self.rnn = nn.LSTM(width, units, batch_first=True)
        # A forget gate that starts open (Jozefowicz et al. 2015); torch adds two biases.
        for bias in ("bias_ih_l0", "bias_hh_l0"):
            nn.init.constant_(self.rnn.get_parameter(bias)[units : 2 * units], 0.5)

    def start(self, num_streams: int) -> State:
        """h_0 = c_0 = 0."""
        return [zeros(self, num_streams, self.rnn.hidden_size) for _ in range(2)]

    def body(self, x_BTE: Tensor, state: State) -> tuple[Tensor, State]:
        """Run through the window."""
        hidden, (h, c) = self.rnn(x_BTE, (state[0][None], state[1][None]))
        return hidden, [h[0], c[0]]
