"""`newllm generate`: text from a model, or a conversation with it."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from newllm_cli.commands.evaluate import TrainedArgument
from newllm_cli.options import EncodingOption, JsonOption, OverwriteOption, Settings, with_settings


@with_settings("generation", "run")
def generate(
    context: typer.Context,
    given: Settings,
    checkpoint: TrainedArgument,
    prompt: Annotated[str | None, typer.Option(help="What the text begins with.")] = None,
    prompt_file: Annotated[
        str | None,
        typer.Option(help="File (- is stdin) with the prompt, as it is.", metavar="FILE|-"),
    ] = None,
    encoding: EncodingOption = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Answer each line of stdin, with a model of chats.")
    ] = False,
    system: Annotated[
        str | None, typer.Option(help="With --chat: what the conversation begins with.")
    ] = None,
    role: Annotated[
        str | None, typer.Option(help="With --chat: the role that answers (assistant).")
    ] = None,
    save_state: Annotated[
        Path | None, typer.Option(help="Keep where the text ended in this file.", metavar="FILE")
    ] = None,
    load_state: Annotated[
        Path | None,
        typer.Option(
            help="Go on where --save-state ended; --seed then makes new choices.", metavar="FILE"
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    r"""Continue a prompt with the last head, or talk; the same seed gives the same text.

    The continuation goes to stdout as it is written; the prompt is repeated on a terminal only. A
    text ends after --max-tokens, at a --stop string, or where the model closes the document. Time
    and memory per token do not depend on how much was read or written before.

    Examples:
        newllm generate runs/phase2.safetensors --prompt 'Return the' --max-tokens 100
        newllm generate runs/phase2.safetensors --prompt 'Return the' --temperature 0 --stop '\n'
        newllm generate runs/phase2.safetensors --prompt-file book.txt --save-state book.state
        newllm generate runs/phase2.safetensors --load-state book.state --json
        newllm generate runs/chat.safetensors --chat
    """
    from newllm_cli.output import print_json
    from newllm_cli.progress import StderrProgress
    from newllm_cli.streams import text_chunks
    from newllm_core.errors import ConfigError, Interrupted

    if prompt is not None and prompt_file is not None:
        raise ConfigError("--prompt and --prompt-file exclude each other: give one of them")
    if chat and not (prompt is None and prompt_file is None):
        raise ConfigError("--chat takes its messages from stdin: leave out the prompt")
    if not chat and not (system is None and role is None):
        raise ConfigError("--system and --role belong to a conversation: add --chat")
    if encoding is not None and prompt_file is None:
        raise ConfigError("--encoding is that of --prompt-file: give one, or leave it out")
    config = given.resolve()

    from newllm_core.checkpoint.format import load
    from newllm_core.data.tokenizer import TextTokenizer
    from newllm_core.files.atomic import remove_leftovers
    from newllm_core.files.lock import exclusive
    from newllm_core.generation import state as states
    from newllm_core.generation.session import Session
    from newllm_core.generation.writer import Tail, encode_prompt
    from newllm_core.plugins.guard import stdout_to_stderr

    if save_state is not None:
        context.with_resource(exclusive(save_state, option="--save-state"))
        remove_leftovers(save_state)
        states.refuse_to_replace(save_state, overwrite=overwrite)
    if prompt_file is not None:
        prompt = "".join(text_chunks(prompt_file, encoding))
    progress = StderrProgress(given)
    loaded = load(checkpoint, given=given, progress=progress)
    loaded.require_trained_head()
    if chat or (not json and sys.stdout.isatty()):
        del progress  # what is shown or waited for is no silence
    tokenizer = TextTokenizer.from_json(loaded.tokenizer_json)
    ids = encode_prompt(tokenizer, prompt or "")
    result: dict[str, Any]
    # A plugin may print while it reads; what is shown goes to stdout itself.
    with stdout_to_stderr() if json else nullcontext():
        # A new text follows the end of another one, as in training.
        start_id = tokenizer.end_id if load_state is None else None
        session = Session(loaded.model, config.generation, seed=config.run.seed, start_id=start_id)
        tail = Tail()
        if load_state is not None:
            identity = loaded.identity()
            state = states.load_state(load_state, loaded.model, tokenizer, identity=identity)
            state.restore(session, keep_random=given.sets("run", "seed"))
            tail = state.tail

        if chat:
            from newllm_cli.conversation import converse
            from newllm_core.generation.chat import ASSISTANT, SYSTEM, Chat

            answers = role or ASSISTANT
            partner = Chat(session, tokenizer, config.generation, answers=answers, system=system)
            said, interrupted = converse(partner, show=not json)
            begun = [] if system is None else [{"role": SYSTEM, "content": system}]
            result, tail = {"messages": begun + said}, Tail()
        else:
            from newllm_cli.continuation import continue_text, read_prompt
            from newllm_core.generation.writer import Writer

            # Behind a new prompt nothing of the text before can become a stop string.
            before, tail = (tail.held, Tail()) if ids else ("", tail)
            writer = Writer(session, tokenizer, config.generation.stop_strings(), tail)
            if ids:
                read_prompt(writer, prompt or "", ids, show=not json)
            written, interrupted = continue_text(
                writer,
                config.generation.max_tokens,
                tokenizer.end_id,
                before=before,
                keep_tail=save_state is not None,
                show=not json,
            )
            tail = writer.tail
            result = {"prompt": prompt or "", "num_prompt_tokens": len(ids), **written}
    if json:
        print_json({"schema": 1, "checkpoint": str(checkpoint), **result})
    if save_state is not None:
        states.save_state(
            session, tail, save_state, identity=loaded.identity(), overwrite=overwrite
        )
    if interrupted and save_state is not None:
        raise Interrupted(f"interrupted; the state is in {save_state}")
    if interrupted:
        raise KeyboardInterrupt
