"""What may become of a damaged file: refused with one line, equal, or valid; all else is a bug."""

from newllm_core.errors import UserError
from tests.robustness.fuzzing.targets.checkpoints import Analyze, Checkpoint
from tests.robustness.fuzzing.targets.configs import Toml
from tests.robustness.fuzzing.targets.matrices import Embeddings, Matrix, NpyMatrix
from tests.robustness.fuzzing.targets.prepared import (
    Boundaries,
    ByteCounts,
    DatasetInfo,
    PreparedTokenizer,
    TokenFile,
)
from tests.robustness.fuzzing.targets.sources import (
    ChatParquet,
    Chats,
    Text,
    TokenIds,
    TokenIdsNpy,
    TokenIdsSafetensors,
)
from tests.robustness.fuzzing.targets.states import GenerationState, TrainingState
from tests.robustness.fuzzing.targets.tokenizers import (
    ForeignTokenizer,
    Merges,
    TokenizerJson,
    Vocabulary,
)

TARGETS = {
    target.__name__: target
    for target in (
        Checkpoint,
        Analyze,
        DatasetInfo,
        PreparedTokenizer,
        TokenFile,
        Boundaries,
        ByteCounts,
        TokenizerJson,
        ForeignTokenizer,
        Vocabulary,
        Merges,
        Matrix,
        NpyMatrix,
        Embeddings,
        Toml,
        TokenIds,
        TokenIdsNpy,
        TokenIdsSafetensors,
        Chats,
        ChatParquet,
        Text,
        GenerationState,
        TrainingState,
    )
}
# A file that cannot be used ends a command with 3. What a config file asks for, or a whole state of
# a run with other settings, is a usage error; weights may be numbers whose contexts are none. The
# name of a cell may become one that nobody has.
EXIT_CODES = {Toml: {2}, TrainingState: {2, 3}, Checkpoint: {3, 4}, Analyze: {3, 4, 5}}


def outcome(target):
    """ "exit CODE", "equal" or "valid"."""
    try:
        return target.check()
    except UserError as error:
        refusal = error
    message, code = str(refusal), refusal.exit_code
    assert message, "an empty message"
    assert "\n" not in message, "not one line"
    assert code in EXIT_CODES.get(type(target), {3}), f"exit code {code}: {message}"
    names_it = target.path.name in message or str(target.path.parent) in message
    assert names_it or isinstance(target, Analyze | Toml), f"it does not say where: {message}"
    return f"exit {code}"
