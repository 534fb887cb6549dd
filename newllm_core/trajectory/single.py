"""One stream, one token at a time, without gradients: what generation is made of.

The formulas are those of `CVFPLayer`; a `MogrifierLayer` computes itself. For a single row the
time goes into reading weights and into starting operations, so both halves of W, and the gate's,
lie side by side (a copy of the blocks' weights, not of the heads'), and a layer is one
matrix-vector product with a handful of operations on vectors behind it.

Shapes: C context_dim, E embed_dim, H hidden units, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from newllm_core import native
from newllm_core.model.language_model import LanguageModel
from newllm_core.model.layer import CVFPLayer
from newllm_core.model.mogrifier import MogrifierLayer
from newllm_core.native.one_row import matrix_vector

WORTH_A_CALL = 2**18


class SingleStream:
    """A model's recurrence and its last head, for a single stream.

    Args:
        model: on the device to compute on; its weights must not change afterwards.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._embedding_VE = model.embedding.weight.detach()
        self._head = model.heads()[-1]
        self._embed_shape = (model.config.embed_dim,)
        layers = model.layers()
        with torch.inference_mode():
            self._start_C = model.start(1)[0]
            self._state = self._start_C.new_zeros(model.context_dim + model.config.embed_dim)
            self._layers = [
                layer
                if isinstance(layer, MogrifierLayer)
                else _lay_out(layer, last=layer is layers[-1])
                for layer in layers
            ]
        self._context_C = self._state[: model.context_dim]
        self._token_E = self._state[model.context_dim :]

    def start(self) -> Tensor:
        """The context c_0 = 0 [C]."""
        return self._start_C

    @torch.inference_mode()
    def step(self, context_C: Tensor, token: int) -> Tensor:
        """The context [C] after reading `token`; the given one stays as it is."""
        self._context_C.copy_(context_C)
        self._token_E.copy_(torch.layer_norm(self._embedding_VE[token], self._embed_shape))
        for layer in self._layers:
            if isinstance(layer, MogrifierLayer):
                updated, _ = layer(context=self._context_C, token=self._token_E, last=True)
                self._context_C.copy_(updated)
            else:
                self._update(layer)
        return self._context_C.clone()

    @torch.inference_mode()
    def logits(self, context_C: Tensor) -> np.ndarray:
        """Next-token logits [V] of the last head."""
        head = self._head
        return _affine(head.weight, head.bias, head.project(context_C)).cpu().numpy()

    def _update(self, layer: "_Layer") -> None:
        """Turn `[c ; x]` into `[c' ; x']`, or into c' alone in the last layer."""
        c, x = self._context_C, self._token_E
        product = _affine(layer.weight, layer.bias, self._state)
        h = product if layer.gate_from is None else product[: layer.gate_from]
        if layer.output is not None:
            weight, bias = layer.output
            u = _affine(weight, bias, h.relu_())
        else:
            u = h
            # A gated context takes the product as it is.
            (u if layer.gate_from is None else u[len(c) :]).relu_()
        if layer.norm_token is not None:
            x.add_(u[len(c) :])
            x.copy_(_norm(x, layer.norm_token, layer.mix))
        if layer.gate_from is not None:
            gate = product[layer.gate_from :].sigmoid_()
            c.copy_(torch.lerp(torch.tanh(u[: len(c)]), c, gate))
        elif layer.norm_context is not None:
            c.add_(u[: len(c)])
            c.copy_(_norm(c, layer.norm_context, layer.mix))


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer's weights as `SingleStream` wants them.

    Attributes:
        weight: `[W ; W_g]` [rows, C+E]; only the rows that somebody reads.
        bias: [rows].
        gate_from: the first row of the gate, if there is one.
        output: weight and bias behind the hidden units, if there are any.
        norm_context: of a layer without a gate.
        norm_token: None in the last layer, whose token nobody reads.
        mix: share of LayerNorm.
    """

    weight: Tensor
    bias: Tensor
    gate_from: int | None
    output: tuple[Tensor, Tensor] | None
    norm_context: tuple[Tensor, Tensor] | None
    norm_token: tuple[Tensor, Tensor] | None
    mix: float


def _lay_out(layer: CVFPLayer, *, last: bool) -> _Layer:
    rows = layer.context_dim if last else None
    hidden_rows = rows if layer.output is None else None
    weight = torch.cat([layer.context_weight, layer.token_weight], dim=1)[:hidden_rows]
    bias = layer.bias[:hidden_rows]
    gate_from = None
    if layer.gated:
        gate_from = len(bias)
        gate = torch.cat([layer.gate_context_weight, layer.gate_token_weight], dim=1)
        weight, bias = torch.cat([weight, gate]), torch.cat([bias, layer.gate_bias])
    output = layer.output
    return _Layer(
        weight=weight.contiguous(),
        bias=bias.clone(),
        gate_from=gate_from,
        output=None if output is None else (output.weight[:rows].clone(), output.bias[:rows]),
        norm_context=None if layer.gated else _affine_of(layer.norm_context),
        norm_token=None if last else _affine_of(layer.norm_token),
        mix=layer.layernorm_mix,
    )


def _affine(weight: Tensor, bias: Tensor, vector: Tensor) -> Tensor:
    """`weight vector + bias`."""
    # Where the matrix is not in the processor's cache, torch takes several times as long.
    if weight.numel() >= WORTH_A_CALL and native.suits(weight, vector):
        return matrix_vector(weight, vector).add_(bias)
    return torch.addmv(bias, weight, vector)


def _affine_of(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    return norm.weight.detach(), norm.bias.detach()


def _norm(z: Tensor, affine: tuple[Tensor, Tensor], mix: float) -> Tensor:
    normed = torch.layer_norm(z, z.shape, *affine)
    return normed if mix == 1.0 else torch.lerp(z, normed, mix)
