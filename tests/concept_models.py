"""A small concept model and a text of four sentences for it."""

import torch

import hf_zoo

DOT = 5  # ends a sentence of the tiny model
IDS = torch.tensor([[9, 8, 7, DOT, 6, 11, DOT, 12, 13, 14, DOT, 15]])
ENDS = [3, 6, 10]


def tiny(task=None, gates=0.5, **overrides):
    """A model whose weights are far from their initial values, with its gates open so far."""
    torch.manual_seed(0)
    model = hf_zoo.create_model("lcm-tiny", task, **overrides).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
            if "gate" in name and "gate_proj" not in name:
                parameter.fill_(gates)
    return model


def heard(module):
    """What a module says from now on."""
    said = []
    module.register_forward_hook(lambda module, inputs, output: said.append(output))
    return said
