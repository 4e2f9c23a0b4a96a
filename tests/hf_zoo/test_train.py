"""`hf-zoo train`: flags, refusals, checkpoints, and (slow) runs that are killed and go on to the same weights."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from cases import CASES, takes_tokens
from safetensors.torch import load_file, save_file
from tiny import bert_folder, llama_folder, text_file
from typer.testing import CliRunner

from hf_zoo.cli import app
from hf_zoo.cli.train_command import parse_arguments
from hf_zoo.registry import ARCHITECTURES
from hf_zoo.tokenization.train import train_tokenizer
from hf_zoo.training.loss_curve import LossCurve
from hf_zoo.training.rows import TRAINABLE_TASKS
from hf_zoo.training.run_folder import finish_run, open_run, why_broken
from hf_zoo.training.train import find_task, has_native_bf16, train

RUN = ["--model", "m", "--dataset", "d"]


def test_only_given_flags_are_passed_on():
    assert parse_arguments(RUN) == {"model": "m", "dataset": "d"}
    given = parse_arguments([*RUN, "--max_steps", "3", "--learning-rate=1e-3", "--no_bf16", "--lora", "--lora_r", "4"])
    assert given == {
        **{"model": "m", "dataset": "d", "max_steps": 3, "learning_rate": 1e-3, "bf16": False},
        **{"lora": {"r": 4}},
    }
    assert parse_arguments([*RUN, "--lora", "--lora_alpha", "32"])["lora"] == {"r": 8, "lora_alpha": 32}
    assert parse_arguments([*RUN, "--bf16"])["bf16"] is True


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([*RUN, "--learning_rat", "1"], "unknown flag '--learning_rat'. Did you mean '--learning_rate'"),
        ([*RUN, "--modle=x"], "unknown flag '--modle'. Did you mean '--model'"),
        ([*RUN, "--max_steps", "many"], "invalid int value: 'many'"),
        ([*RUN, "--save_strategy"], "--save_strategy"),
        ([*RUN, "stray"], "unexpected argument 'stray'"),
        (["--dataset", "d"], "--model is missing"),
        (["--model", "m"], "--dataset is missing"),
        ([*RUN, "--lora_r", "4"], "add --lora"),
    ],
)
def test_wrong_flags_are_named(arguments, message):
    with pytest.raises(ValueError) as error:
        parse_arguments(arguments)
    assert message in str(error.value)


def test_help_shows_our_flags_and_trainers():
    shown = CliRunner().invoke(app, ["train", "--help"]).output
    for flag in ("--model", "--dataset", "--lora_r", "--learning_rate", "--no_bf16"):
        assert flag in shown
    assert shown.index("--model") < shown.index("--learning_rate")


def whole_checkpoint(folder, step):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    save_file({"w": torch.arange(100.0)}, checkpoint / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"state": torch.arange(100.0)}, checkpoint / name)
    (checkpoint / "trainer_state.json").write_text('{"global_step": 1}')
    return checkpoint


FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["missing", "cut off"])
def test_a_checkpoint_with_a_harmed_file_is_skipped(tmp_path, name, harm):
    first, second = whole_checkpoint(tmp_path, 2), whole_checkpoint(tmp_path, 10)
    (tmp_path / "run.json").write_text('{"finished": false}')
    assert open_run(tmp_path, {}) == second
    file = second / name
    content = file.read_bytes()
    file.unlink() if harm == "missing" else file.write_bytes(content[: len(content) * 2 // 3])
    assert why_broken(first) is None and why_broken(second)
    assert open_run(tmp_path, {}) == first
    assert not second.exists() and (tmp_path / "set-aside-checkpoint-10").is_dir()


def test_a_folder_is_opened_once_for_one_run(tmp_path):
    asked = {"model": "m", "lora": None}
    assert open_run(tmp_path / "new", asked) is None
    assert open_run(tmp_path / "new", {**asked, "model": "n"}) is None  # cut off before a checkpoint: nothing to lose
    assert open_run(tmp_path / "new", asked) is None
    checkpoint = whole_checkpoint(tmp_path / "new", 5)
    assert open_run(tmp_path / "new", asked) == checkpoint
    with pytest.raises(ValueError, match="another run, with model 'm', not 'n'"):
        open_run(tmp_path / "new", {**asked, "model": "n"})
    with pytest.raises(ValueError, match="with max_steps None, not 3"):
        open_run(tmp_path / "new", {**asked, "max_steps": 3})
    finish_run(tmp_path / "new")
    with pytest.raises(ValueError, match="finished.*overwrite_output_dir"):
        open_run(tmp_path / "new", asked)
    assert open_run(tmp_path / "new", asked, overwrite=True) is None
    assert not (tmp_path / "new" / "checkpoint-5").exists()


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json", "x.safetensors", "checkpoint-3"])
def test_a_model_of_unknown_origin_is_never_overwritten(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(ValueError, match="another program"):
        open_run(tmp_path, {})
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_other_files_are_no_reason_to_refuse(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert open_run(tmp_path, {}) is None


def test_a_named_checkpoint_continues_any_run(tmp_path):
    whole_checkpoint(tmp_path, 2), whole_checkpoint(tmp_path, 4)
    named = tmp_path / "checkpoint-2"
    assert open_run(tmp_path, {"model": "other"}, resume_from=str(named)) == named
    assert not (tmp_path / "checkpoint-4").exists()  # of the old course
    (named / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match="optimizer.pt is missing"):
        open_run(tmp_path, {}, resume_from=str(named))


def test_loss_curve_is_replaced_whole(tmp_path):
    from transformers import TrainerState

    history = [{"loss": 3.0 - i / 10, "learning_rate": 1e-3, "step": i} for i in range(10)]
    state = TrainerState(log_history=[*history, {"eval_loss": 2.5, "step": 9}])
    LossCurve().write(str(tmp_path), state)
    assert json.loads((tmp_path / "training.json").read_text()) == state.log_history
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["loss.png", "training.json"]


def test_the_picture_shows_both_losses():
    from hf_zoo.training.loss_curve import draw_losses

    axes, right = draw_losses([{"loss": 3.0, "learning_rate": 0.1, "step": 1}, {"eval_loss": 2.0, "step": 2}]).axes
    assert [(line.get_label(), *line.get_xydata()[0]) for line in axes.lines] == [
        ("train", 1, 3),
        ("validation", 2, 2),
    ]
    assert right.lines[0].get_xydata().tolist() == [[1, 0.1]]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return llama_folder(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return text_file(tmp_path_factory.mktemp("text") / "lines.txt")


def test_the_task_is_read_from_the_model(llama, bert):
    assert find_task(str(llama)) == "causal-lm"
    assert find_task(str(bert)) == "pre-training"


def test_parts_that_do_not_fit_are_refused_before_training(llama, bert, text, tmp_path):
    options = {"output_dir": str(tmp_path / "out"), "max_steps": 1}
    with pytest.raises(ValueError, match="unknown model 'llm-tin'. Did you mean 'llm-tiny'"):
        train("llm-tin", str(text))
    with pytest.raises(ValueError, match="unknown training argument 'max_step'"):
        train(str(llama), str(text), max_step=1)
    with pytest.raises(ValueError, match="unknown task to train 'causal'. Did you mean 'causal-lm'"):
        train(str(llama), str(text), "causal")
    with pytest.raises(ValueError, match="do not belong together"):
        train(str(bert), str(text), "masked-lm", str(llama), **options)
    options["overwrite_output_dir"] = True
    with pytest.raises(ValueError, match="needs a column label"):
        train(str(llama), str(text), "sequence-classification", **options)
    with pytest.raises(ValueError, match="block_size 256 is more than the 64"):
        train(str(llama), str(text), **options)


def test_bf16_follows_the_hardware_unless_said(monkeypatch, tmp_path):
    from hf_zoo.training.train import _training_arguments

    for native in (True, False):
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
        assert has_native_bf16(use_cpu=True) is native
        given = {"output_dir": str(tmp_path)}
        assert _training_arguments(given, has_validation=False).bf16 is native
        for wanted in (True, False):
            assert _training_arguments({**given, "bf16": wanted}, has_validation=False).bf16 is wanted


def start(*arguments, output_dir, **environment):
    command = [sys.executable, "-m", "hf_zoo", "train", *map(str, arguments), "--output_dir", str(output_dir)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), **environment}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def losses(folder):
    return [
        (e["step"], e.get("loss"), e.get("eval_loss"), e.get("grad_norm")) for e in history(folder) if not final(e)
    ]


def history(folder):
    return json.loads((folder / "training.json").read_text())


def final(entry):
    return "train_runtime" in entry


@pytest.fixture(scope="module")
def folder_of_text(tmp_path_factory):
    """Train and validation splits, by the names of `datasets`."""
    folder = tmp_path_factory.mktemp("splits")
    text_file(folder / "train.txt", 200)
    text_file(folder / "validation.txt", 60)
    return folder


@pytest.fixture(scope="module")
def long_run(llama, folder_of_text):
    """Two and a half epochs, dropout, a warm-up, saved every five steps."""
    flags = "--block_size 32 --max_steps 60 --save_steps 5 --logging_steps 1 --per_device_train_batch_size 8"
    flags += " --warmup_steps 10 --learning_rate 3e-3"
    return ["--model", llama, "--dataset", folder_of_text, *flags.split()]


@pytest.fixture(scope="module")
def uninterrupted(long_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    output = finish(start(*long_run, output_dir=folder))
    assert str(folder / "loss.png") in output.replace("\n", "")
    return folder


@pytest.mark.slow
def test_a_run_leaves_everything_that_reloads(uninterrupted, long_run):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(uninterrupted)
    assert len(AutoTokenizer.from_pretrained(uninterrupted)) <= model.config.vocab_size
    train_losses = [loss for _, loss, _, _ in losses(uninterrupted) if loss is not None]
    assert len(train_losses) == 60 and train_losses[-1] < 0.8 * train_losses[0]
    assert any(e is not None for _, _, e, _ in losses(uninterrupted))
    assert (uninterrupted / "loss.png").exists()
    again = start(*long_run, output_dir=uninterrupted)
    output = again.communicate(timeout=100)[0]
    assert again.returncode == 2 and "holds this run, finished" in output and "Traceback" not in output


def assert_same_run(folder, reference):
    assert losses(folder) == losses(reference)
    weights, expected = load_file(folder / "model.safetensors"), load_file(reference / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name in expected:
        assert torch.equal(weights[name], expected[name]), name


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(uninterrupted, long_run, tmp_path):
    folder = tmp_path / "run"
    for step in (10, 30):  # in the first and in a later epoch
        process = start(*long_run, output_dir=folder)
        wait_for(folder / f"checkpoint-{step}" / "trainer_state.json", process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (folder / "model.safetensors").exists()
    first = folder / "checkpoint-5" / "trainer_state.json"
    written = first.stat().st_mtime_ns
    finish(start(*long_run, output_dir=folder))
    assert first.stat().st_mtime_ns == written  # the same weights again from the first step would prove nothing
    assert_same_run(folder, uninterrupted)


# Kills the process halfway through writing a file of the checkpoint of step 20
KILL_IN_THE_MIDDLE = """
import os, pathlib, signal, sys, torch
save, victim = torch.save, sys.argv.pop(1)
def killing_save(value, file, *args, **kwargs):
    save(value, file, *args, **kwargs)
    path = pathlib.Path(str(file))
    if path.name == victim and path.parent.name == "checkpoint-20":
        path.write_bytes(path.read_bytes()[:-200])
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = killing_save
from hf_zoo.cli import app
sys.argv[0] = "hf-zoo"
app()
"""


@pytest.mark.slow
@pytest.mark.parametrize("file", ["optimizer.pt", "rng_state.pth"])
def test_a_checkpoint_cut_off_while_written_is_skipped(uninterrupted, long_run, tmp_path, file):
    folder = tmp_path / "run"
    arguments = ["train", *map(str, long_run), "--output_dir", str(folder)]
    killed = subprocess.run(
        [sys.executable, "-c", KILL_IN_THE_MIDDLE, file, *arguments], capture_output=True, timeout=300
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (folder / "checkpoint-20" / file).exists()
    output = finish(start(*long_run, output_dir=folder))
    assert "checkpoint-20 is not whole" in output.replace("\n", "")
    assert_same_run(folder, uninterrupted)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_masked_runs_resume_to_the_same_weights(bert, text, tmp_path):
    flags = "--task masked-lm --block_size 32 --max_steps 40 --save_steps 4 --logging_steps 1 --save_total_limit 2"
    run = ["--model", bert, "--dataset", text, *flags.split()]
    finish(start(*run, output_dir=tmp_path / "whole"))
    process = start(*run, output_dir=tmp_path / "cut")
    wait_for(tmp_path / "cut" / "checkpoint-8" / "trainer_state.json", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finish(start(*run, output_dir=tmp_path / "cut"))
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_words_without_marked_pieces_are_masked_whole(bert, text, tmp_path):
    from transformers import AutoModelForMaskedLM

    tokenizer = train_tokenizer([], "byte", 300)
    tokenizer.add_special_tokens({"mask_token": "<|mask|>"})
    model = AutoModelForMaskedLM.from_pretrained(bert)
    model.resize_token_embeddings(len(tokenizer))
    train(model, str(text), tokenizer=tokenizer, block_size=32, output_dir=str(tmp_path / "out"), max_steps=1)


@pytest.mark.slow
def test_lora_trains_the_adapter_alone(llama, text, tmp_path, capsys):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    before = load_file(llama / "model.safetensors")
    trainer = train(
        str(llama),
        str(text),
        lora={"r": 4},
        block_size=32,
        **{"output_dir": str(tmp_path / "out"), "max_steps": 8, "learning_rate": 1e-2, "bf16": False},
    )
    assert "trainable params" in capsys.readouterr().out
    assert not (tmp_path / "out" / "model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(llama)
    assert all(torch.equal(base.state_dict()[name], value) for name, value in before.items())
    ids = torch.arange(10)[None]
    plain = base(ids).logits
    adapted = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    assert not torch.allclose(adapted(ids).logits, plain)
    torch.testing.assert_close(adapted(ids).logits, trainer.model.eval()(ids).logits)


def rows_file(path, task):
    rows = []
    for i in range(80):
        if task == "sequence-classification":
            rows.append({"text": ["good bird", "sad mat"][i % 2] + " cat" * (i % 5), "label": ["yes", "no"][i % 2]})
        else:
            rows.append({"tokens": ["cat", "overflew"], "labels": ["NOUN", "VERB"]})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("task", ["sequence-classification", "token-classification"])
def test_classification_learns_from_columns_of_names(llama, tmp_path, task):
    trainer = train(
        str(llama),
        str(rows_file(tmp_path / "rows.jsonl", task)),
        task,
        block_size=32,
        **{"output_dir": str(tmp_path / "out"), "max_steps": 30, "learning_rate": 1e-2},
    )
    names = {"sequence-classification": {0: "no", 1: "yes"}, "token-classification": {0: "NOUN", 1: "VERB"}}
    assert trainer.model.config.id2label == names[task]
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged[-1] < 0.2


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset",
    [
        a.tiny_preset
        for a in ARCHITECTURES.values()
        if a.tasks[0] in TRAINABLE_TASKS and takes_tokens(CASES[a.model_type])
    ],
)
def test_presets_train_by_name(preset, text, tmp_path):
    arguments = {"output_dir": str(tmp_path / "out"), "max_steps": 12, "learning_rate": 3e-3, "logging_steps": 1}
    trainer = train(preset, str(text), block_size=32, lora=None, **arguments)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged[-1] < 0.9 * logged[0]
    adapted = train(
        str(tmp_path / "out"),
        str(text),
        block_size=32,
        lora={},
        **{**arguments, "output_dir": str(tmp_path / "adapter")},
    )
    assert adapted.model.peft_config["default"].lora_alpha == 16
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_pre_training_learns_masks_and_pairs(bert, tmp_path):
    file = tmp_path / "stories.jsonl"
    stories = [{"text": " ".join(f"{word} saw the bird." for word in ("cat", "it", "one") * 4)} for _ in range(30)]
    file.write_text("\n".join(map(json.dumps, stories)))
    trainer = train(
        str(bert), str(file), block_size=48, output_dir=str(tmp_path / "out"), max_steps=20, learning_rate=3e-3
    )
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged[-1] < logged[0]


def test_a_model_that_takes_no_text_is_named(text, tmp_path):
    with pytest.raises(ValueError, match="tabular-tiny takes numeric_values, and this trains on text"):
        train("tabular-tiny", str(text), output_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
