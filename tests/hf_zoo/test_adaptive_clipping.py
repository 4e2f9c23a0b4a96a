"""Adaptive clipping: the formula of the paper unit by unit, and its place in Trainer."""

import pytest
import torch
import transformers
from torch import nn
from torch.testing import assert_close

import hf_zoo
from hf_zoo.training.adaptive_clipping import AdaptiveClipping, clip_units

SHAPES = [(), (5,), (6, 4), (6, 3, 4), (6, 4, 3, 3)]


def clipped_in_a_loop(weight, grad, clip, eps):
    """Brock et al. 2021, equation 3, as it stands there."""
    if weight.ndim < 2:
        weight, grad, shape = weight.reshape(1, -1), grad.reshape(1, -1), weight.shape
    else:
        shape = weight.shape
    units = []
    for w, g in zip(weight, grad, strict=True):
        w_norm, g_norm = max(w.square().sum().sqrt().item(), eps), g.square().sum().sqrt().item()
        units.append(g * clip * w_norm / g_norm if g_norm / w_norm > clip else g)
    return torch.stack(units).view(shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("clip", [0.01, 1.0, 100.0])
def test_each_unit_is_clipped_as_the_paper_has_it(shape, clip):
    generator = torch.Generator().manual_seed(0)
    weight, grad = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    if weight.ndim > 1:
        weight[1] = 0.0  # takes eps
        grad[2] *= 1e-3  # too small to be clipped with 0.01
    expected = clipped_in_a_loop(weight, grad, clip, eps=1e-3)
    clip_units(weight, grad, clip, eps=1e-3)
    assert_close(grad, expected, rtol=1e-12, atol=0)


def test_no_gradient_stays_none_and_a_unit_of_zeros_can_move():
    weight = torch.zeros(2, 3, dtype=torch.float64)
    grad = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0]], dtype=torch.float64)
    clip_units(weight, grad, clip=0.1, eps=0.01)
    assert_close(grad, torch.tensor([[0.0, 0.0, 0.0], [0.0006, 0.0, 0.0008]], dtype=torch.float64))


def test_norms_of_half_precision_are_those_of_single():
    """The norm of 65,536 numbers of 300 is 76,800, more than float16 can hold."""
    weight, grad = torch.full((1, 65_536), 300.0).half(), torch.full((1, 65_536), 600.0).half()
    clip_units(weight, grad, clip=0.5, eps=1e-3)
    assert grad.dtype == torch.float16
    assert_close(grad, torch.full_like(grad, 150.0))


class Recorder(transformers.TrainerCallback):
    """Gradients as the optimiser gets them."""

    def __init__(self):
        self.steps = []

    def on_optimizer_step(self, args, state, control, model, **kwargs):
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})


def gradients(folder, callbacks, steps=2, **arguments):
    """Of `steps` steps with learning rate zero, so that each sees the first weights."""
    torch.manual_seed(0)
    model = hf_zoo.create_model("nfnet-tiny", num_labels=3)
    with torch.no_grad():  # a step later branches are open
        for stage in model.model.layers:
            for block in stage.blocks:
                block.skip_gain.fill_(1.0)
    generator = torch.Generator().manual_seed(1)
    rows = [{"pixel_values": torch.randn(3, 32, 32, generator=generator), "labels": i % 3} for i in range(12)]
    recorder = Recorder()
    arguments = transformers.TrainingArguments(
        *(str(folder),),
        **{"max_steps": steps, "per_device_train_batch_size": 2, "learning_rate": 0.0, "use_cpu": True},
        **{"max_grad_norm": 0.0, "report_to": [], "save_strategy": "no", **arguments},
    )
    transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[*callbacks, recorder]).train()
    return model, recorder.steps


def test_trainer_clips_the_sum_of_accumulated_batches_and_leaves_the_last_layer(tmp_path):
    arguments = {"gradient_accumulation_steps": 3}
    model, plain = gradients(tmp_path / "plain", [], **arguments)
    _, clipped = gradients(tmp_path / "clipped", [AdaptiveClipping(clip=1e-3)], **arguments)
    assert len(clipped) == len(plain) == 2
    weights = dict(model.named_parameters())
    changed = set()
    for before, after in zip(plain, clipped, strict=True):
        for name, weight in weights.items():
            expected = before[name]
            if not name.startswith("score."):
                expected = clipped_in_a_loop(weight.detach(), before[name], clip=1e-3, eps=1e-3)
            assert_close(after[name], expected)
            if not torch.equal(after[name], before[name]):
                changed.add(name)
    assert len(changed) > len(weights) / 2


def test_final_layers_are_the_callers_to_name(tmp_path):
    clip = 1e-6  # of everything that has a gradient
    _, plain = gradients(tmp_path / "plain", [], steps=1)
    _, clipped = gradients(tmp_path / "clipped", [AdaptiveClipping(clip, final_layers=("stem",))], steps=1)
    same = {name.split(".")[0:2][-1] for name in plain[0] if torch.equal(plain[0][name], clipped[0][name])}
    assert same == {"stem"}


def test_scaled_gradients_and_senseless_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"max_grad_norm=float\('inf'\)"):
        arguments = transformers.TrainingArguments(str(tmp_path), max_grad_norm=0.0, report_to=[])
        arguments.fp16 = True  # which a machine without an accelerator cannot be asked for
        AdaptiveClipping().on_train_begin(arguments, None, None)
    with pytest.raises(ValueError, match="above 0, got 0.0 and 0.001"):
        AdaptiveClipping(clip=0.0)


def test_parameters_that_are_frozen_have_none(tmp_path):
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    model(torch.ones(1, 2)).sum().backward()
    AdaptiveClipping().on_pre_optimizer_step(None, None, None, model)
    assert model.weight.grad is None and model.bias.grad is not None
