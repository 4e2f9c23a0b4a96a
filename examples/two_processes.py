"""Train in several processes, by DDP through Trainer or by FSDP2, on CPUs as on GPUs.

    torchrun --standalone --nproc_per_node 2 examples/two_processes.py ddp
    torchrun --standalone --nproc_per_node 2 examples/two_processes.py fsdp

With --nproc_per_node 1 losses and gradients are the same: BATCH_SIZE rows are a step, however many share them.
"""

import argparse
import tempfile

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from hf_zoo.training.rows import load_splits, make_rows
from hf_zoo.training.train import load_model, load_tokenizer, train

BATCH_SIZE = 8
BLOCK_SIZE = 32


def ddp(model: str, dataset: str, num_steps: int) -> list[tuple[float, float]]:
    """Trainer needs nothing but torchrun: every process takes its share of each batch."""
    arguments = {"max_steps": num_steps, "logging_steps": 1, "learning_rate": 1e-3, "bf16": False}
    arguments["per_device_train_batch_size"] = BATCH_SIZE // dist.get_world_size()
    folder = [tempfile.mkdtemp(prefix="two-processes-")]
    dist.broadcast_object_list(folder)  # the first process names the folder for all
    trainer = train(model, dataset, "causal-lm", block_size=BLOCK_SIZE, output_dir=folder[0], **arguments)
    return [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]


def fsdp(model: str, dataset: str, num_steps: int) -> list[tuple[float, float]]:
    """Every process holds a shard of each layer's weights, gradients and optimizer state."""
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    torch.manual_seed(0)  # the same fresh weights in every process
    tokenizer = load_tokenizer(model)
    rows = make_rows(load_splits(dataset)[0], "causal-lm", tokenizer, BLOCK_SIZE).with_format("torch")
    network = load_model(model, "causal-lm", tokenizer).to(device).train()
    for layer in network.base_model.layers:  # gathered one at a time, in forward and backward
        fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    history = []
    for step in range(num_steps):
        batch = rows[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
        share = {name: values.chunk(mesh.size())[mesh.get_local_rank()].to(device) for name, values in batch.items()}
        loss = network(**share).loss  # rows are equally long, so the mean over processes is the batch's loss
        loss.backward()
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in network.parameters()]).full_tensor()
        optimizer.step()
        optimizer.zero_grad()
        loss = loss.detach() / mesh.size()
        dist.all_reduce(loss)
        history.append((loss.item(), norm.item()))
    return history


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["ddp", "fsdp"])
    parser.add_argument("--model", default="llm-tiny")
    parser.add_argument("--dataset", default="python-source")
    parser.add_argument("--num_steps", type=int, default=5)
    options = parser.parse_args()
    dist.init_process_group()
    history = {"ddp": ddp, "fsdp": fsdp}[options.mode](options.model, options.dataset, options.num_steps)
    if dist.get_rank() == 0:
        for step, (loss, norm) in enumerate(history, 1):
            print(f"step {step} loss {loss:.6f} gradient {norm:.6f}")
    dist.destroy_process_group()
