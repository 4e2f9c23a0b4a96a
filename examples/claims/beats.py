"""BEATs learns to tell timbres that nobody named, and labels distilled from it tell them better than random ones.

Chen et al. 2022, https://arxiv.org/abs/2212.09058, sections 3.1 and 3.2. The first iteration finds the labels that a
random projection gives to hidden patches of tones; a tokenizer is distilled from that model; the second iteration
finds the tokenizer's labels. No iteration is told anything about a tone. What was learnt is read by a linear probe: it
is given some tones with their timbre and tells that of held-out tones, whatever notes they play. Rivals are the
encoder before training, the spectra themselves and the labels of the random projection. (The paper's second iteration
is ahead of its first, too; at this size either may be.)
"""

import numpy as np
import torch
from torch.nn import functional as F

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.modeling.beats.modeling_beats import ZooBeatsTokenizer

STEPS, LR = 1000, 2e-3  # of either iteration
TOKENIZER_STEPS, TOKENIZER_LR = 500, 3e-4  # a faster one leaves half of the codes unused
FRAMES, BANDS, CODES = 96, 4, 64  # of a spectrum, of its patches at a time, and labels
CONFIG = {"num_mel_bins": 32, "patch_size": 32 // BANDS, "codebook_size": CODES}
NAMED = [50, 100, 200, 400, 800]  # tones whose timbre a probe is told
DRAWS = 6  # of them


def tones(split, ears):
    """Spectra (N, frames, bins), and the timbre of each."""
    rows = load_dataset("tones", split)
    spectra = [torch.from_numpy(ears.spectrum(np.asarray(audio["array"]))).float() for audio in rows["audio"]]
    return torch.stack(spectra)[:, :FRAMES], np.array(rows["timbre"])


@torch.no_grad()
def of_patches(read, spectra):
    """What `read` makes of each patch (N, T, ...), a hundred spectra at a time."""
    return torch.cat([read(some) for some in spectra.split(100)])


def probed(read, train_tones, test_tones):
    """Accuracy, for each number of named tones, of a linear probe of the mean over time of what `read` makes."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    means = (of_patches(read, spectra).unflatten(1, (-1, BANDS)).mean(1) for spectra, _ in (train_tones, test_tones))
    x, test_x = (mean.flatten(1).numpy() for mean in means)
    accuracies = []
    for named in NAMED:
        linear = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-1, 4, 11)))
        draws = [np.random.default_rng(draw).permutation(len(x))[:named] for draw in range(DRAWS)]
        fits = (linear.fit(x[rows], train_tones[1][rows]).score(test_x, test_tones[1]) for rows in draws)
        accuracies.append(sum(fits) / DRAWS)
    return accuracies


def run(seed, claim):
    """Accuracies of the probe by what it reads."""
    ears = hf_zoo.create_processor("beats-tiny")
    train_tones, test_tones = tones("train", ears), tones("validation+test", ears)
    spectra, found = train_tones[0], {}

    def measure(name, read):
        found[name] = probed(read, train_tones, test_tones)
        kind = "labels" if name.endswith("labels") else "states"
        claim.draw(f"timbres told from {kind}, by named tones", name, NAMED, found[name])
        print(name, [round(accuracy, 3) for accuracy in found[name]], flush=True)

    def learn(model, title, label, steps, learning_rate, **targets):
        def draw(generator):
            i = int(torch.randint(len(spectra), (), generator=generator))
            return {"input_values": spectra[i], **{name: values[i] for name, values in targets.items()}}

        claim.draw(title, label, range(10, steps + 1, 10), train(model, draw, steps, learning_rate, seed=seed + 1))

    def states(model):
        return lambda some: model.model(some).last_hidden_state

    def one_hot(tokenize):
        return lambda some: F.one_hot(tokenize(some), CODES).float()

    torch.manual_seed(seed)
    first, second = (hf_zoo.create_model("beats-tiny", "pre-training", **CONFIG).eval() for _ in range(2))
    measure("spectra", lambda some: first.patches(some).unflatten(-1, (first.config.patch_size, -1)).mean(2))
    measure("untrained", states(first))
    learn(first, "loss of hidden labels", "first", STEPS, LR)
    measure("first", states(first))
    tokenizer = ZooBeatsTokenizer(first.config)
    tokenizer.spread_codes(spectra[::4])
    teacher_states = of_patches(states(first), spectra)
    learn(tokenizer, "loss of distillation", "tokenizer", TOKENIZER_STEPS, TOKENIZER_LR, teacher_states=teacher_states)
    measure("random labels", one_hot(lambda some: first.tokenizer(first.patches(some))))
    measure("distilled labels", one_hot(tokenizer.tokenize))
    labels = of_patches(tokenizer.tokenize, spectra)
    learn(second, "loss of hidden labels", "second", STEPS, LR, labels=labels)
    measure("second", states(second))
    return found


def main(seed=0):
    claim = Claim("beats", "Chen et al. 2022")
    found = run(seed, claim)
    mean = {name.replace(" ", "_"): sum(accuracies) / len(NAMED) for name, accuracies in found.items()}
    states = {name: mean[name] for name in ("first", "second", "untrained", "spectra")}
    claim.compare(
        "timbres are told from states of either iteration better by two points than before training and from spectra",
        min(states["first"], states["second"]) > max(states["untrained"], states["spectra"]) + 0.02,
        **states,
    )
    labels = {name: mean[name] for name in ("distilled_labels", "random_labels")}
    claim.compare(
        "and better by three points from labels that are distilled than from those of the random projection",
        labels["distilled_labels"] > labels["random_labels"] + 0.03,
        **labels,
    )
    claim.finish()


if __name__ == "__main__":
    main()
