"""Out and back: the same checkpoint, or one with what was learnt in between."""

import json
import shutil

import cases
import pytest
import torch
from newllm_hub.export import export_folder
from newllm_hub.folder import COMPANION, FILES, MODEL
from newllm_hub.import_folder import import_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer

from newllm_core.checkpoint.format import load, save
from newllm_core.errors import ConfigError, InputError, PluginError
from newllm_core.files.lock import exclusive
from newllm_core.files.tensor_files import open_tensors


def open_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)


def whole(path):
    """Tensors and metadata, in which the content hash is."""
    with open_tensors(path) as file:
        tensors = {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata()


def test_untouched_it_is_the_same_checkpoint(exported, tmp_path):
    _, path, folder = exported
    import_checkpoint(folder, tmp_path / "again.safetensors")
    assert whole(tmp_path / "again.safetensors") == whole(path)


def test_saved_by_transformers_it_is_the_same_checkpoint(exported, tmp_path):
    _, path, folder = exported
    open_model(folder).save_pretrained(tmp_path / "saved")
    again = open_model(tmp_path / "saved")
    again.save_pretrained(tmp_path / "twice")
    import_checkpoint(tmp_path / "twice", tmp_path / "again.safetensors")
    assert whole(tmp_path / "again.safetensors") == whole(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", ["tied-heads", "learned"])
def test_what_a_training_step_learns_comes_back(shape, dtype, tmp_path):
    path = cases.write(cases.make(**cases.SHAPES[shape]), tmp_path)
    export_folder(path, tmp_path / "model", analysis=False)
    model = open_model(tmp_path / "model").train()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model", trust_remote_code=True)
    batch = tokenizer([cases.TEXT[:40], "the dog"], return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(4):
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    model.to(dtype).save_pretrained(tmp_path / "tuned")
    tokenizer.save_pretrained(tmp_path / "tuned")

    made = import_checkpoint(tmp_path / "tuned", tmp_path / "tuned.safetensors")
    loaded, before = load(tmp_path / "tuned.safetensors"), load(path)
    assert not loaded.altered
    tuned = dict(model.named_parameters())
    changed = 0
    for (name, now), then in zip(
        loaded.model.named_parameters(), before.model.parameters(), strict=True
    ):
        last = f"token_output.{before.model.num_heads - 1}."
        its = name.removeprefix(last).replace("projection", "+projection")
        its = its.removeprefix("+") if "+" in its else (f"head.{its}" if last in name else its)
        if its in tuned:
            assert torch.equal(now, tuned[its].float())
            changed += not torch.equal(now, then)
        else:
            assert torch.equal(now, then)  # heads that Transformers does not know
    assert changed > 4
    for of_one in (made, loaded):
        assert (of_one.history, of_one.vacuous_terms) == ([], [])
        assert (of_one.gate, of_one.results) == ({}, {})
    assert loaded.provenance == before.provenance | {"trained_outside": True}
    for name in ("config", "tokenizer_json", "warmup", "phase"):
        assert getattr(loaded, name) == getattr(before, name), name
    for split, tokens in before.probes.items():
        assert torch.equal(loaded.probes[split], tokens)
    assert all(torch.equal(loaded.objective[n], t) for n, t in before.objective.items())


@pytest.fixture
def folder(chat, tmp_path):
    export_folder(chat, tmp_path / "model", analysis=False)
    return tmp_path / "model"


def refused(act, *words, kind=InputError):
    with pytest.raises(kind) as caught:
        act()
    message = str(caught.value)
    assert all(word in message for word in words), message
    return message


def test_folders_that_cannot_be_imported(folder, tmp_path):
    out = tmp_path / "out.safetensors"

    def act():
        import_checkpoint(folder, out)

    refused(lambda: import_checkpoint(folder, tmp_path / "x.bin"), "x.bin", kind=ConfigError)
    model = open_model(folder)
    model.resize_token_embeddings(model.config.vocab_size + 3, mean_resizing=False)
    model.save_pretrained(folder)
    refused(act, str(folder), "does not fit", "embedding.weight")
    shutil.copy(folder / MODEL, folder / COMPANION)
    refused(act, COMPANION, "was not written by newllm export")
    (folder / COMPANION).unlink()
    refused(act, str(folder), f"has no {COMPANION}: copy it")
    refused(lambda: import_checkpoint(tmp_path / "absent", out), "no such folder", "absent")
    assert not out.exists()


def test_nobody_writes_what_another_is_writing(chat, folder, tmp_path):
    out = tmp_path / "again.safetensors"
    with exclusive(out), exclusive(folder):
        refused(lambda: import_checkpoint(folder, out), "another newllm is writing", "--out")
        again = {"analysis": False, "overwrite": True}
        refused(lambda: export_folder(chat, folder, **again), "is writing", "--to")
    assert not out.exists()


def test_only_exported_folders_are_replaced(chat, folder, tmp_path):
    def to(place, **options):
        return export_folder(chat, place, analysis=False, **options)

    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    refused(lambda: to(folder), str(folder), "--overwrite")
    (folder / "notes").write_text("mine")
    (folder / MODEL).write_bytes(b"")
    to(folder, overwrite=True)
    assert (folder / "notes").read_text() == "mine"
    assert (folder / MODEL).stat().st_size > 1000
    other = tmp_path / "other"
    other.mkdir()
    to(other)
    for place in (tmp_path, chat):
        refused(lambda place=place: to(place, overwrite=True), "no exported model")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    (tmp_path / "link").symlink_to("far/away")
    for overwrite in (False, True):
        to(tmp_path / "link", overwrite=overwrite)
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["away"]


def test_what_cannot_be_exported(tmp_path, monkeypatch):
    path = cases.write(cases.make(phase="phase1"), tmp_path)
    refused(lambda: export_folder(path, tmp_path / "m"), "no trained head")
    path = cases.write(cases.make(cell="gru"), tmp_path)
    monkeypatch.setattr("newllm_core.plugins.plugin.OWN_DISTRIBUTION", "another")
    message = refused(lambda: export_folder(path, tmp_path / "m"), "'gru'", kind=PluginError)
    assert "cannot be exported" in message
    assert not (tmp_path / "m").exists()


def test_a_folder_that_is_gone_costs_no_weights(chat, tmp_path):
    export_folder(chat, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").exists()


def test_a_card_tells_of_the_head_that_is_exported(chat, tmp_path):
    from huggingface_hub import ModelCard

    checkpoint = load(chat)
    of_all = checkpoint.results["validation"]
    heads = [dict(of_all, perplexity=50.0), dict(of_all, perplexity=11.0)]
    checkpoint.results["validation"] = {**of_all, "heads": heads}
    save(checkpoint, tmp_path / "two.safetensors", overwrite=False)
    export_folder(tmp_path / "two.safetensors", tmp_path / "model")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found["perplexity"] == 11.0


def test_card(chat, tmp_path):
    from huggingface_hub import ModelCard

    options = {"license_id": "mit", "languages": ["en"], "analysis": False}
    export_folder(chat, tmp_path / "model", **options)
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert (card.data.license, card.data.language) == ("mit", ["en"])
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {"perplexity": 12.2, "bits_per_byte": 1.9, "word_perplexity": 99.0}
    assert "| bits per byte | 1.9 |" in card.text
    assert "from `book.txt`" in card.text
    assert "/home/me" not in card.text
    code = card.text.partition("```python")[2].partition("```")[0]
    compile(code, "card", "exec")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architectures"] == ["NewllmForCausalLM"]
