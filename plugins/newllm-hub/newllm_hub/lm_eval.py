"""newllm models in lm-evaluation-harness: `--model newllm --model_args checkpoint=FILE`.

Every text is read behind the end token, as in training, and the last head predicts. Whoever uses
lm-eval 0.4.13 imports this module first; later versions find it by its entry point.

Shapes: B requests, T tokens, C context_dim, V vocabulary.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from torch import Tensor
from torch.nn import functional as F

from newllm_core.config import GenerationConfig
from newllm_core.data.control_tokens import HIDDEN
from newllm_core.errors import InputError
from newllm_core.generation.chat import ASSISTANT
from newllm_core.generation.session import Session
from newllm_core.generation.writer import Writer
from newllm_core.pipeline.opened import open_checkpoint
from newllm_core.pipeline.trained import evaluation_config
from newllm_core.runtime.device import where_exact
from newllm_core.runtime.precision import at_least_float32, products_in
from newllm_core.settings import Settings
from newllm_core.trajectory.sequential import unroll

# Tokens of each request that are read at a time, so that memory does not grow with a context.
TOKENS_AT_ONCE = 512
BATCH_SIZE = 16
Encoded = tuple[tuple[str, str], list[int], list[int]]
# How the token of a role stands in a conversation that is a text: no message can have it.
ROLE = re.compile(HIDDEN + r"<\|(\w+)\|>")


@register_model("newllm")
class NewllmLM(TemplateLM):
    """A checkpoint as lm-evaluation-harness calls a model.

    Args:
        checkpoint: path of one whose heads were trained.
        batch_size: requests that are read side by side.
        device: "cpu", "cuda" or "auto".
        max_gen_toks: tokens of an answer, where a task does not say.
        max_batch_size: not used; the harness gives it to every model.

    Raises:
        ConfigError: there is no such device.
        InputError: there is no such checkpoint, or no head of it was trained.
    """

    def __init__(
        self,
        checkpoint: str,
        *,
        batch_size: int | str = BATCH_SIZE,
        device: str = "auto",
        max_gen_toks: int = 256,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self._opened = open_checkpoint(checkpoint, device=device)
        self._opened.checkpoint.require_trained_head()
        self._device = self._opened.device
        self._run = evaluation_config(Settings(None), self._opened.checkpoint).run
        # "auto" asks for whatever fits: memory does not grow with texts.
        self.batch_size = int(batch_size) if str(batch_size).isdigit() else BATCH_SIZE
        # One source for all requests: the harness asks the same again for another draw.
        self._random = torch.Generator().manual_seed(0)
        self.max_gen_toks = max_gen_toks

    @property
    def eot_token_id(self) -> int:
        """Return the token that closes a document, and that every text is read behind."""
        return self._opened.tokenizer.end_id

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> list[int]:
        """Return ids of a text; only `apply_chat_template` makes tokens of roles."""
        tokenizer = self._opened.tokenizer
        text, *messages = ROLE.split(string)
        ids = tokenizer.encode(text)
        for role, content in zip(messages[::2], messages[1::2], strict=True):
            ids += [tokenizer.role_ids[role], *tokenizer.encode(content)]
        return ids

    @property
    def tokenizer_name(self) -> str:
        """Return what tells one tokenizer from another: the harness keeps requests by it."""
        text = self._opened.tokenizer.to_json()
        return f"newllm-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return what a message becomes: there is one template, whichever is asked for."""
        return "<|role|>content" if chat_template else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as text, as `prepare` writes it: a role, then its content.

        Raises:
            InputError: the model was not trained on chats with these roles.
        """
        turns = [(turn["role"], turn["content"]) for turn in chat_history]
        turns += [(ASSISTANT, "")] if add_generation_prompt else []
        known = self._opened.tokenizer.role_ids
        for role, _ in turns:
            if role not in known:
                raise InputError(
                    f"this checkpoint was not trained on chats with the role {role} (its roles: "
                    f"{', '.join(known) or 'none'}): leave --apply-chat-template out"
                )
        return "".join(f"{HIDDEN}<|{role}|>{content}" for role, content in turns)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:  # noqa: ANN401
        """Return the log-likelihood of each text, in constant memory: what `newllm evaluate` makes.

        That is of every token and of the end token behind them; bytes that tokens do not give back
        are counted with 8 bits.
        """
        results = []
        for request in requests:
            (text,) = request.args
            figures = self._opened.evaluate(text) if text else None
            bits = figures["heads"][-1]["bits_per_byte"] * figures["num_bytes"] if figures else 0.0
            results.append(-bits * math.log(2))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, results[-1])
        return results

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:  # noqa: ANN401
        """Return the continuation of each context, up to a stop string or the end token."""
        results = []
        for request in requests:
            context, given = request.args
            options = normalize_gen_kwargs(given, self.max_gen_toks)
            sampling = {key: options[key] for key in ("top_k", "top_p") if options.get(key)}
            temperature = options.get("temperature", 0)
            config = GenerationConfig(temperature=temperature, **{"top_p": 1.0} | sampling)
            tokenizer = self._opened.tokenizer
            session = Session(self._opened.model, config, start_id=tokenizer.end_id)
            session.random = self._random
            writer = Writer(session, tokenizer, [stop for stop in options["until"] if stop])
            writer.read(self.tok_encode(context))
            ends = {tokenizer.end_id}
            if ROLE.search(context):  # the next message is not part of an answer
                ends.update(tokenizer.role_ids.values())
            written = "".join(writer.write(options["max_gen_toks"], ends))
            results.append(written + writer.finish())
            self.cache_hook.add_partial("generate_until", request.args, results[-1])
        return results

    def _loglikelihood_tokens(
        self,
        requests: list[Encoded],
        disable_tqdm: bool = False,
        **kwargs: Any,  # noqa: ANN401
    ) -> list[tuple[float, bool]]:
        results: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        # Those of one length side by side: nothing is read in vain.
        order = sorted(range(len(requests)), key=lambda n: len(requests[n][1] + requests[n][2]))
        for begin in range(0, len(order), self.batch_size):
            batch = order[begin : begin + self.batch_size]
            for number, result in zip(
                batch, self._score([requests[n] for n in batch]), strict=True
            ):
                results[number] = result
                self.cache_hook.add_partial("loglikelihood", requests[number][0], result)
        return results

    @torch.inference_mode()
    def _score(self, requests: Sequence[Encoded]) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation, and whether it is the likeliest."""
        model, end = self._opened.model, self.eot_token_id
        texts = [[*([] if c[:1] == [end] else [end]), *c, *rest] for _, c, rest in requests]
        firsts = [len(text) - len(rest) for text, (_, _, rest) in zip(texts, requests, strict=True)]
        inputs_BT = np.full((len(texts), max(map(len, texts)) - 1), end, np.int64)
        for row, text in enumerate(texts):
            inputs_BT[row, : len(text) - 1] = text[:-1]  # behind the last one nothing counts
        read_BT = torch.from_numpy(inputs_BT).to(self._device)
        nats, is_greedy = [0.0] * len(texts), [True] * len(texts)
        context_BC = model.start(len(texts))
        with products_in(model, self._run, self._device):
            for begin in range(0, read_BT.shape[1], TOKENS_AT_ONCE):
                part_BT = read_BT[:, begin : begin + TOKENS_AT_ONCE]
                (contexts_BTC,) = unroll(model, part_BT, context_BC, final_only=True)
                context_BC = contexts_BTC[:, -1]
                for row, (first, text) in enumerate(zip(firsts, texts, strict=True)):
                    # The context at place p - 1 predicts the token at p.
                    start, stop = max(first, begin + 1), begin + part_BT.shape[1] + 1
                    targets = torch.tensor(text[start:stop], device=self._device)
                    of_row = contexts_BTC[row, start - 1 - begin :][: len(targets)]
                    last = torch.tensor(text[start - 1 :][: len(targets)], device=self._device)
                    lost, likeliest = self._predict(of_row, last, targets)
                    nats[row] += lost
                    is_greedy[row] &= likeliest
        return [(-lost, greedy) for lost, greedy in zip(nats, is_greedy, strict=True)]

    def _predict(
        self, contexts_TC: Tensor, last_T: Tensor, targets_T: Tensor
    ) -> tuple[float, bool]:
        if not len(targets_T):
            return 0.0, True
        model = self._opened.model
        with model.narrow_products():
            logits_TV = model.predict(model.heads()[-1], contexts_TC, last_T)
        logits_TV = at_least_float32(logits_TV)
        lost_T = where_exact(F.cross_entropy(logits_TV, targets_T, reduction="none")).double()
        return float(lost_T.sum()), bool((logits_TV.argmax(-1) == targets_T).all())
