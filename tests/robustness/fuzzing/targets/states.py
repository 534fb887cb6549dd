"""What runs and conversations go on from."""

import contextlib
import itertools

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from newllm_core import settings
from newllm_core.checkpoint import format as checkpoints
from newllm_core.checkpoint import run_state as training_state
from newllm_core.data.prepared import open_dataset
from newllm_core.files.tensor_files import HASH, content_hash
from newllm_core.generation.session import Session
from newllm_core.generation.state import load_state, save_state
from newllm_core.generation.writer import Tail
from newllm_core.model.language_model import LanguageModel
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.runtime.progress import Silent
from newllm_core.training.phase1.loss import Phase1Loss
from newllm_core.training.phase1.trainer import Phase1Trainer
from newllm_core.training.phase2.extra_terms import make_objective
from tests.robustness.fuzzing.targets.base import EQUAL, VALID, Target


class GenerationState(Target):
    kind = "checkpoint"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / "text.state"
        self.checkpoint = checkpoints.load(home.checkpoint)
        session = Session(self.checkpoint.model, self.checkpoint.config.generation, start_id=3)
        identity = self.checkpoint.identity()
        save_state(session, Tail(), self.path, identity=identity, overwrite=True)
        self.good = self.path.read_bytes()
        self.context_C = session.context_C

    def check(self):
        found = load_state(
            self.path, self.checkpoint.model, self.home.bpe, identity=self.checkpoint.identity()
        )
        assert torch.equal(found.context_C, self.context_C)
        return EQUAL


IDENTITY = {"run.seed": 0, "dataset": "x"}


class TrainingState(Target):
    """Half of the time with a hash that fits; taken over by a run if it loads."""

    kind = "checkpoint"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / "run.resume"
        dataset = open_dataset(home.folder / "data")
        self.tokens = {"train": dataset.train.tokens, "validation": dataset.validation.tokens}
        self.config = settings.resolve(
            {
                "model": {"context_dim": 4, "embed_dim": 4},
                "phase1": {"max_tokens": 64, "convergence_tokens": 16, "max_iterations": 3},
                "run": {"precision": "float32"},
            }
        )
        trainer = self.trainer()
        with Silent().task("", 0, "tokens") as task:
            list(itertools.islice(trainer._train_window(task), 2))
        training_state.save_state(trainer.state(), self.path, IDENTITY)
        self.good = self.path.read_bytes()
        self.expected = self.resumed()

    def trainer(self):
        config = self.config
        model = LanguageModel(config.model, self.home.bpe.vocab_size)
        objective, _ = make_objective(config.phase1.objective, config, model)
        regularizers, _ = REGULARIZERS.make(config.phase1.reg, {}, model.context_dim)
        loss = Phase1Loss(model, objective, regularizers, config.phase1)
        return Phase1Trainer(loss, self.tokens, config)

    def write(self, random, data):
        self.path.write_bytes(data)
        if random.random() < 0.5:
            with contextlib.suppress(Exception), safe_open(self.path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata[HASH] = content_hash(tensors, metadata)
                save_file(tensors, self.path.with_suffix(".new"), metadata)
                self.path.with_suffix(".new").replace(self.path)

    def resumed(self):
        state = training_state.load_state(self.path, IDENTITY)
        trainer = self.trainer()
        with training_state.restoring(state):
            trainer.load_state(state)
        return trainer.state()

    def check(self):
        found = self.resumed()
        same = found.tensors.keys() == self.expected.tensors.keys() and all(
            torch.equal(value, self.expected.tensors[name]) for name, value in found.tensors.items()
        )
        return EQUAL if same and found.values == self.expected.values else VALID
