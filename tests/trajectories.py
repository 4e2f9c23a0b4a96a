"""A step of a trajectory for the sweep: everything that a large action model can be taught at once."""

import torch


def trajectory(model, inputs):
    """What `ZooLamForCausalLM` takes beside the inputs that are given, and labels of all its heads."""
    ids, given = inputs["input_ids"], model.dummy_inputs
    rows = len(ids)
    batch = {name: value[:1].expand(rows, *value.shape[1:]).clone() for name, value in given.items()}
    del batch["input_ids"], batch["attention_mask"]
    acts, steps = batch["tool_ids"].shape[1] + 3, 2
    each = torch.arange(rows)
    whole = {
        **batch,
        "labels": ids,
        "act_positions": torch.full((rows,), ids.shape[1] - 4),
        "tool_labels": each % 2,
        "option_labels": each % 2,
        "kind_labels": each % 4,
        "ending_labels": each % 2,
        "value_labels": each.float(),
        "mode_labels": torch.tensor([[0, 1]]).expand(rows, -1),
        "start_labels": torch.tensor([[1, -100]]).expand(rows, -1),
        "end_labels": torch.tensor([[2, -100]]).expand(rows, -1),
        "choice_labels": torch.tensor([[-100, 2]]).expand(rows, -1),
        "number_labels": torch.tensor([[0.5, float("nan")]]).expand(rows, -1),
        "boolean_labels": torch.tensor([[-100, 1]]).expand(rows, -1),
        "search_acts": torch.stack((each % acts, (each + 4) % acts), dim=1),
        "search_visits": torch.eye(acts)[:1].expand(rows, steps + 1, -1),
        "search_values": torch.full((rows, steps + 1), 0.5),
        "search_rewards": torch.full((rows, steps), 0.1),
        "search_done": torch.tensor([[0, 1]]).expand(rows, -1),
    }
    return {name: value for name, value in whole.items() if name not in inputs}
