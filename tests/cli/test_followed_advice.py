"""Whoever does what a message says is helped: the command is refused, then works.

Of commands joined by `&&`, the last is the refused one again, or with what the advice changes.
"""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from newllm_core.checkpoint.kept import OF_PROBES
from newllm_core.plugins.plugin import FROM_FILES
from tests.few import FEW_FLAGS
from tests.open_gate import OPEN

from .inside import save_checkpoint, save_dataset

PLUGIN = """
from newllm_core.regularizers.base import Regularizer

class SpreadOut(Regularizer):
    def loss(self, contexts_ND, tokens_N):
        return -contexts_ND.var()
"""
NEW = "--out=new.safetensors"
# A checkpoint decides what is of Phase 1, and which passages it keeps.
OF_ANALYSIS = [
    flag
    for flag in FEW_FLAGS
    if "analysis." in flag and not any(f".{key}=" in flag for key in OF_PROBES)
]
START = "phase1 --data=data --context-dim=8 --max-tokens=100"
PHASE1 = f"{START} --max-iterations=0"
ABSENT = PHASE1.replace("--data=data", "--data=absent")
PHASE2 = "phase2 first.safetensors --data=data --epochs=1 --max-tokens=60"
TIED = PHASE2.replace("first", "tied")
TEXT = "prepare --source=text-file --input=train.txt --val-token-policy=keep"
SPREAD_OUT = "--reg=spread-out --plugin=mine.py"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("advice")
    data, tokenizer = save_dataset(folder)
    (folder / "mine.py").write_text(PLUGIN)
    size = tokenizer.vocab_size
    wide = torch.randn(size, 4)
    save_file({"wide": wide}, folder / "wide.safetensors")
    save_file({"a": torch.randn(size, 8), "b": wide}, folder / "two.safetensors")
    common = {"tokenizer": tokenizer, "dataset": folder / "gone"}
    save_checkpoint(folder / "first.safetensors", **common, phase="phase1")
    save_checkpoint(folder / "tied.safetensors", **common, phase="phase1", tie_weights=True)
    save_checkpoint(folder / "last.safetensors", **common)
    save_checkpoint(folder / "chat.safetensors", dataset=folder)
    whole = (folder / "last.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:300])
    (folder / "separate.txt").write_text("the cat|the mat|a dog|the log|an ant", encoding="utf-8")
    rows = [{"text": f"row {i}"} for i in range(9)]
    for name in ("one", "two"):
        (folder / "saved" / name).mkdir(parents=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "saved" / name / "rows.jsonl").write_text(lines)
        state = {"_data_files": [{"filename": "rows.jsonl"}]}
        (folder / "saved" / name / "state.json").write_text(json.dumps(state))
    (folder / "saved" / "dataset_dict.json").write_text('{"splits": ["one", "two"]}')
    assert data == folder / "data"
    return folder


CASES = [
    (f"{PHASE1} --out=new", "--out new.safetensors", f"{PHASE1} {NEW}"),
    (f"{PHASE1} --out=last.safetensors", "choose another --out", f"{PHASE1} {NEW}"),
    (
        f"{PHASE1} --out=saved/",
        "a checkpoint is a .safetensors file: pass --out saved/model.safetensors",
        f"{PHASE1} --out=saved/model.safetensors",
    ),
    (
        f"{PHASE1.replace('data=data', 'data=train.txt')} {NEW}",
        "newllm prepare --source text-file --input train.txt --out runs/train",
        f"{TEXT} --out runs/train && {PHASE1.replace('data=data', 'data=runs/train')} {NEW}",
    ),
    (
        f"{PHASE1.replace('data=data', 'data=saved/one/rows.jsonl')} {NEW}",
        "newllm prepare --source rows --input saved/one/rows.jsonl --out runs/rows",
        "prepare --source rows --input saved/one/rows.jsonl --out runs/rows "
        f"--val-token-policy=keep && {PHASE1.replace('data=data', 'data=runs/rows')} {NEW}",
    ),
    (
        "contexts last.safetensors --text=train.txt --out=saved",
        "end it in .safetensors or .npy, as saved/contexts.npy",
        "contexts last.safetensors --text=train.txt --out=saved/contexts.npy",
    ),
    (
        f"{TEXT.replace('text-file', 'python-docs')} --out=new --encoding=cp1252",
        "source.encoding: the source that is chosen has no options",
        f"{TEXT} --out=new",
    ),
    (
        f"{ABSENT} {NEW}",
        "newllm prepare --out absent",
        f"{TEXT} --out=absent && {ABSENT} {NEW}",
    ),
    (f"{PHASE1} {NEW} --reg=spread-out", "--plugin FILE.py", f"{PHASE1} {NEW} {SPREAD_OUT}"),
    (
        f"{PHASE1} {NEW} --reg=past-context",
        "did you mean 'past-",
        f"{PHASE1} {NEW} --reg=past-contexts",
    ),
    (f"{PHASE1} --set=seed=1", "section.key=value", f"{PHASE1} {NEW} --set=run.seed=1"),
    (
        f"{PHASE1} {NEW} --embeddings=wide.safetensors",
        "set --embed-dim 4",
        f"{PHASE1} {NEW} --embeddings=wide.safetensors --embed-dim=4",
    ),
    (
        f"{PHASE1} {NEW} --embeddings=two.safetensors",
        "which tensor is meant in two.safetensors? It holds a, b",
        f"{PHASE1} {NEW} --embeddings=two.safetensors:a --embed-dim=8",
    ),
    (
        f"{START} {NEW} --max-iterations=2 --learning-rate=1e30",
        "(other settings begin anew, with --overwrite)",
        f"{START} {NEW} --max-iterations=2 --learning-rate=1e-3 --overwrite",
    ),
    (f"{PHASE2} {NEW}", "--untrained-blocks", f"{PHASE2} {NEW} --untrained-blocks"),
    (
        f"{TIED} {NEW} --untrained-blocks --freeze-context",
        "without --freeze-context",
        f"{TIED} {NEW} --untrained-blocks",
    ),
    (
        f"{PHASE2} {NEW} --untrained-blocks --learning-rate=1e30",
        "a lower --learning-rate",
        f"{PHASE2} {NEW} --untrained-blocks --learning-rate=1e-3 --overwrite",
    ),
    (
        "evaluate first.safetensors --data=data",
        "newllm phase2",
        f"{PHASE2} {NEW} --untrained-blocks && evaluate new.safetensors --data=data",
    ),
    ("evaluate last.safetensors", "--data DIR", "evaluate last.safetensors --data=data"),
    (
        "evaluate last.safetensors --data=data --split=test",
        "newllm prepare --test-fraction",
        "prepare --source=text-file --input=separate.txt --document-separator=| --out=new "
        "--val-token-policy=keep --test-fraction=.2 --tokenizer=data/tokenizer.json && "
        "evaluate last.safetensors --data=new --split=test",
    ),
    (
        "generate chat.safetensors --role=assistant",
        "add --chat",
        "generate chat.safetensors --role=assistant --chat",
    ),
    (
        "contexts last.safetensors --text=train.txt --out=new.txt",
        "end it in .safetensors or .npy, as new.npy",
        "contexts last.safetensors --text=train.txt --out=new.npy",
    ),
    ("analyze two.safetensors --tensor=c", "it: a, b", "analyze two.safetensors --tensor=a"),
    (
        "analyze cut.safetensors",
        "copy or save it again",
        "cp last.safetensors cut.safetensors && analyze cut.safetensors",
    ),
    (f"{TEXT} --out=new --vocab-size=100", "at least 258", f"{TEXT} --out=new --vocab-size=258"),
    (f"{TEXT} --out=new --encoding=klingon", "as cp1252", f"{TEXT} --out=new --encoding=cp1252"),
    (f"{TEXT} --out=new --tokenizer=none", "give bpe", f"{TEXT} --out=new --tokenizer=bpe"),
    (
        f"{TEXT} --out=new --tokenizer-path=data/tokenizer.json",
        "set data.tokenizer to gpt2",
        f"{TEXT} --out=new --tokenizer-path=data/tokenizer.json --set=data.tokenizer=gpt2",
    ),
    (
        "prepare --source=rows --input=saved --out=new",
        "--input saved/one",
        "prepare --source=rows --input=saved/one --out=new --val-token-policy=keep",
    ),
    ("plugins new My_Reg --kind=cell", "as in my-reg", "plugins new my-reg --kind=cell"),
    ("plugins show none-such", "known: ", "plugins show none"),
]


@pytest.mark.parametrize(("refused", "advice", "followed"), CASES, ids=[case[0] for case in CASES])
def test_advice_is_followed(newllm, files, tmp_path, refused, advice, followed):
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    lines = [(refused, False), *((line, True) for line in followed.split(" && "))]
    for line, helps in lines:
        if line.startswith("cp "):
            copied, onto = map(Path, line.split()[1:])
            onto.unlink()  # a link to what all cases share
            shutil.copy(copied, onto)
            continue
        few = FEW_FLAGS if line.startswith("phase") else ()
        if line.startswith(("analyze", "phase2")):
            few = OF_ANALYSIS
        gate = OPEN if line.startswith("phase2") else ()
        done = newllm(*line.split(), *few, *gate)
        FROM_FILES.clear()
        if helps:
            assert done.code == 0, done.err
        else:
            assert done.code in (2, 3, 4, 5, 6), (done.code, done.err)
            assert advice in done.err.splitlines()[-1], done.err


@pytest.mark.parametrize("name", ["a b", "it's", "-n", "a\nb", "very long " * 20])
def test_what_is_next_may_be_pasted(newllm, files, name):
    text = ["--source=text-file", f"--input={files / 'train.txt'}", "--val-token-policy=keep"]
    told = newllm("prepare", *text, f"--out={name}").out
    for more in ([*FEW_FLAGS, "--max-iterations=0", f"--out={name}.safetensors"], ["--json"]):
        after = shlex.split(told[told.index("next: newllm ") :])[2:]
        done = newllm(*after, *more)
        assert done.code == 0, done.err
        told = done.out
