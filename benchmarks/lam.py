"""What planning costs beside the model: time outside the model's own calls over time inside, and growth with search.

Run: python benchmarks/lam.py. Targets: at most 0.05 of the model's time for a decision in the world model (a prefill
of 256 tokens and its steps) and for each token of a text that is searched; time grows as simulations do.
"""

import functools
import statistics
import time

import torch
from paired import growth, report
from transformers import LlamaConfig, LlamaForCausalLM

import hf_zoo
from hf_zoo.agents.tree_search import tree_search
from hf_zoo.modeling.lam import planning
from hf_zoo.modeling.lam.planning import plan

TIMES = 3
DOUBLINGS = [8, 16, 32, 64]
CORE = {
    **{"model_type": "llama", "vocab_size": 32000, "hidden_size": 768, "intermediate_size": 2048},
    **{"num_hidden_layers": 8, "num_attention_heads": 12, "num_key_value_heads": 4},
}


class Inside:
    """Seconds spent in calls of some functions of an object."""

    def __init__(self):
        self.seconds = 0.0

    def watch(self, owner, *names):
        """Count calls of these."""
        for name in names:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, function):
        def timed(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds += time.perf_counter() - start
            return result

        return timed


def share(run, inside):
    """Medians of (whole - inside) / inside and of the whole, over several runs."""
    run()
    ratios, wholes = [], []
    for _ in range(TIMES):
        inside.seconds, start = 0.0, time.perf_counter()
        run()
        whole = time.perf_counter() - start
        ratios.append((whole - inside.seconds) / inside.seconds)
        wholes.append(whole)
    return statistics.median(ratios), statistics.median(wholes)


def decisions(model, inputs, simulations, inside):
    """One decision: prefill, then a search in the world model."""

    def run():
        plan(model, model(**inputs), planner="mcts", simulations=simulations)

    return share(run, inside)


@torch.no_grad()
def main():
    torch.manual_seed(0)
    rows = []
    model = hf_zoo.create_model("xlam-2-1b", core_config=CORE, tie_word_embeddings=False).eval()
    tools = torch.nn.functional.normalize(torch.randn(1, 16, model.config.tool_dim), dim=-1)
    inputs = {"input_ids": torch.randint(5, 30000, (1, 256)), "act_positions": torch.tensor([255])}
    words = torch.nn.functional.normalize(torch.randn(1, 16, 40, model.config.tool_dim), dim=-1)
    inputs |= {"tool_vectors": tools, "tool_words": words, "logits_to_keep": 1}
    inside = Inside()
    inside.watch(model, "forward")
    inside.watch(planning.ForeseenActs, "step")
    known, times = model(**inputs), []
    for simulations in DOUBLINGS:
        ratio, whole = decisions(model, inputs, simulations, inside)
        searching = functools.partial(plan, model, known, planner="mcts", simulations=simulations)
        times.append(share(searching, inside)[1])
        rows.append({"what": "decision", "simulations": simulations, "outside / inside": ratio, "seconds": whole})
    rows.append(
        {"what": "growth of search", "simulations": "", "outside / inside": growth(DOUBLINGS, times), "seconds": ""}
    )

    config = LlamaConfig(
        vocab_size=8000, hidden_size=512, intermediate_size=1376, num_hidden_layers=6, num_attention_heads=8
    )
    writer, texts = LlamaForCausalLM(config).eval(), torch.randint(5, 8000, (2, 64))
    judge = lambda ids, mask: (ids == 7).sum(-1).float()  # noqa: E731
    inside = Inside()
    inside.watch(writer, "forward")
    for simulations in (4, 16):

        def run(simulations=simulations):
            options = {"simulations": simulations, "max_new_tokens": 3, "pad_token_id": 0, "eos_token_id": 1}
            writer.generate(texts, custom_generate=tree_search, value_function=judge, **options)

        ratio, whole = share(run, inside)
        rows.append(
            {"what": "text, 3 tokens", "simulations": simulations, "outside / inside": ratio, "seconds": whole}
        )
    report("lam", rows, "search time outside the model's calls over the time inside; growth is an exponent")


if __name__ == "__main__":
    main()
