"""Every neural peer: size, causality, state."""

import pytest
import torch

from benchmarks.comparison.neural import PEERS, NeuralPeer
from benchmarks.comparison.sizing import TOLERANCE, solve_width
from benchmarks.peers.base import TOKENS_PER_STEP, count_parameters
from benchmarks.peers.mingru import scan_in_parallel, scan_sequentially
from benchmarks.peers.transformer import rotate, rotations
from newllm_core.errors import ConfigError

VOCAB = 40
NAMES = sorted(PEERS)


def peer_of(name, width=16):
    torch.manual_seed(3)
    kind = PEERS[name]
    peer = kind(VOCAB, width, shape=kind.shapes[0], dropout=0.3, input_dropout=0.3)
    return peer.double().eval()


def read(peer, tokens, state=None):
    start = [part.double() for part in peer.start(len(tokens))] if state is None else state
    with torch.no_grad():
        return peer(tokens, start)


@pytest.fixture
def tokens(generator):
    return torch.randint(VOCAB, (3, 23), generator=generator)


@pytest.mark.parametrize("vocab_size", [258, 8192])
@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_equal(name, vocab_size):
    kind = PEERS[name]

    def count(width):
        with torch.device("meta"):
            return count_parameters(kind(vocab_size, width, shape=kind.shapes[-1]))

    width = solve_width(count, 2_000_000, what=name, steps=kind.width_steps)
    assert abs(count(width) - 2_000_000) <= TOLERANCE * 2_000_000


@pytest.mark.parametrize("name", NAMES)
def test_every_window_makes_a_step_of_the_same_size(name):
    for window in PEERS[name].windows:
        streams, length = map(int, window.split("x"))
        assert streams * length == TOKENS_PER_STEP


@pytest.mark.parametrize("name", NAMES)
def test_the_two_dropouts_are_at_the_two_ends(name, tokens):
    """Dropped at the input, what is read differs; dropped at the output, entries are zero."""
    kind = PEERS[name]
    peer = kind(VOCAB, 16, shape=kind.shapes[0], dropout=0.0, input_dropout=0.5).double()
    still, _ = peer(tokens, [part.double() for part in peer.start(len(tokens))])
    again, _ = peer(tokens, [part.double() for part in peer.start(len(tokens))])
    assert (still - again).abs().max() > 1e-3
    assert (still == 0).double().mean() == 0
    peer.input_dropout.p, peer.dropout.p = 0.0, 0.5
    dropped, _ = peer(tokens, [part.double() for part in peer.start(len(tokens))])
    assert (dropped == 0).double().mean() == pytest.approx(0.5, abs=0.06)


def test_a_size_out_of_reach_is_said():
    with pytest.raises(ConfigError, match="gru has 8,194 parameters"):
        solve_width(lambda width: 4097 * width, 3_000, what="gru", steps=(2,))


@pytest.mark.parametrize("name", NAMES)
def test_the_softmax_is_tied_and_counted_once(name):
    peer = peer_of(name)
    assert peer.head.weight is peer.embedding.weight
    of_size = [p for p in peer.parameters() if p.shape == (VOCAB, 16)]
    assert len(of_size) == 1
    assert count_parameters(peer) == sum(p.numel() for p in set(peer.parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_later_tokens_change_nothing_before_them(name, tokens):
    peer = peer_of(name)
    before, _ = read(peer, tokens)
    for t in (0, 9, 22):
        other = tokens.clone()
        other[:, t:] = (other[:, t:] + 1) % VOCAB
        changed, _ = read(peer, other)
        assert torch.allclose(before[:, :t], changed[:, :t], atol=1e-12)
        assert (before[:, t] - changed[:, t]).abs().max() > 1e-6


@pytest.mark.parametrize("name", [name for name in NAMES if PEERS[name].carries_state])
def test_windows_that_carry_the_state_make_one_text(name, tokens):
    peer = peer_of(name)
    whole, last = read(peer, tokens)
    first, state = read(peer, tokens[:, :10])
    second, end = read(peer, tokens[:, 10:], state)
    assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-12)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(end, last, strict=True))
    anew, _ = read(peer, tokens[:, 10:])
    assert (anew - second).abs().max() > 1e-3


@pytest.mark.parametrize("length", [1, 2, 13, 64])
def test_the_parallel_scan_equals_the_sequential_one(length, generator):
    shape = (3, length, 5)
    draw = {"generator": generator, "dtype": torch.float64}
    inputs = (torch.rand(shape, **draw), torch.randn(shape, **draw), torch.randn(3, 5, **draw))
    inputs = [x.requires_grad_() for x in inputs]
    weights = torch.randn(shape, **draw)
    found = []
    for scan in (scan_sequentially, scan_in_parallel):
        states = scan(*inputs)
        found.append([states, *torch.autograd.grad((states * weights).sum(), inputs)])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    # And both are the recurrence.
    keep, add, start = (x.detach() for x in inputs)
    h = start
    for t in range(length):
        h = keep[:, t] * h + add[:, t]
    assert torch.allclose(found[1][0][:, -1], h, atol=1e-12)


def test_mingru_follows_its_formulas(tokens):
    """One layer, one token at a time, written as in the paper."""
    peer = peer_of("mingru")
    layer = peer.layers[0]
    x = torch.nn.functional.layer_norm(peer.embedding(tokens), (16,))
    before = torch.zeros(3, 3, 16, dtype=torch.float64)
    h = torch.zeros(3, 32, dtype=torch.float64)
    with torch.no_grad():
        found, last, _ = layer(x, h, before)
        normed = torch.cat([before, layer.norm_conv(x)], 1)
        for t in range(x.shape[1]):
            mixed = (normed[:, t : t + 4] * layer.kernel).sum(1)
            gate, value = layer.gates(mixed).chunk(2, -1)
            z = 1 / (1 + torch.exp(-gate))
            g = torch.where(value >= 0, value + 0.5, torch.sigmoid(value))
            h = (1 - z) * h + z * g
            y = x[:, t] + layer.down(h)
            y = y + layer.mlp(layer.norm_mlp(y))
            assert torch.allclose(found[:, t], y, atol=1e-6)  # gates are float32
    assert torch.allclose(last, h, atol=1e-6)


def test_rotated_products_depend_on_the_distance_only(generator):
    q, k = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    rotation = rotations(20, 8, torch.device("cpu")).double()
    turned_q, turned_k = rotate(q.expand(20, 8), rotation), rotate(k.expand(20, 8), rotation)
    products = turned_q @ turned_k.T
    for distance in (0, 1, 7):
        diagonal = products.diagonal(-distance)
        # Angles are float32.
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-5)
    assert abs(products[1, 0] - products[7, 0]) > 1e-3


@pytest.mark.parametrize("name", ["newllm", "gru"])
def test_the_seed_decides_the_weights(name, conditions):
    contestant = NeuralPeer(name, conditions)
    first, again, other = (contestant.build(contestant.start, seed) for seed in (0, 0, 1))
    assert torch.equal(first.embedding.weight, again.embedding.weight)
    assert not torch.equal(first.embedding.weight, other.embedding.weight)
