"""The table of architectures, one line each.

Everything that must know all architectures reads this table: registration, LoRA defaults, presets, conversion,
tests, the README's tables. Class and file names follow from the name, so a line holds only what cannot be derived.
"""

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from .errors import unknown_name

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# task -> (Auto class of transformers, what its class is called after the architecture)
TASKS = {
    "feature-extraction": ("AutoModel", "Model"),
    "concept-prediction": ("AutoModelForPreTraining", "ForConceptPrediction"),
    "pre-training": ("AutoModelForPreTraining", "ForPreTraining"),
    "causal-lm": ("AutoModelForCausalLM", "ForCausalLM"),
    "masked-lm": ("AutoModelForMaskedLM", "ForMaskedLM"),
    "seq2seq-lm": ("AutoModelForSeq2SeqLM", "ForConditionalGeneration"),
    "text-encoding": ("AutoModelForTextEncoding", "EncoderModel"),
    "next-sentence-prediction": ("AutoModelForNextSentencePrediction", "ForNextSentencePrediction"),
    "sequence-classification": ("AutoModelForSequenceClassification", "ForSequenceClassification"),
    "token-classification": ("AutoModelForTokenClassification", "ForTokenClassification"),
    "question-answering": ("AutoModelForQuestionAnswering", "ForQuestionAnswering"),
    # The nearest word transformers has: questions about a table of facts
    "graph-question-answering": ("AutoModelForTableQuestionAnswering", "ForGraphQuestionAnswering"),
    "multiple-choice": ("AutoModelForMultipleChoice", "ForMultipleChoice"),
    "mask-generation": ("AutoModelForMaskGeneration", "Model"),
    "image-classification": ("AutoModelForImageClassification", "ForImageClassification"),
    "masked-image-modeling": ("AutoModelForMaskedImageModeling", "ForMaskedImageModeling"),
    "image-text-to-text": ("AutoModelForImageTextToText", "ForConditionalGeneration"),
    "audio-classification": ("AutoModelForAudioClassification", "ForAudioClassification"),
    "automatic-speech-recognition": ("AutoModelForCTC", "ForCTC"),
    "zero-shot-image-classification": ("AutoModelForZeroShotImageClassification", "Model"),
}
DECODER_TASKS = ("causal-lm", "sequence-classification", "token-classification", "question-answering")
ENCODER_TASKS = (
    *("masked-lm", "pre-training", "next-sentence-prediction", "sequence-classification"),
    *("token-classification", "question-answering", "multiple-choice"),
)
ENCODER_DECODER_TASKS = (
    *(
        "seq2seq-lm",
        "pre-training",
        "text-encoding",
        "sequence-classification",
        "token-classification",
        "question-answering",
    ),
)


@dataclass(frozen=True)
class Architecture:
    """One line of the table.

    Args:
        name: folder in `modeling/`; `model_type` is `zoo_<name>`, classes are `Zoo<Name>...`.
        title: what it is, for tables.
        paper: (short citation, address).
        tasks: names of `TASKS`, the main one first; feature-extraction goes without saying elsewhere.
        lora_targets: linear layers that LoRA-like methods adapt when the user names none; those that a model has.
        lora_parameters: parameters that are no linear layers, and that `lora_config` adapts where a model has them.
        feedforward_targets: linear layers whose input IA3 scales, where it scales the output of the others.
        norm_targets: layers that LN-tuning trains.
        counted_task: the task whose model the published parameter counts are of; the main one without it.
        processors: (Auto class, "file.Class" in `hf_zoo.tokenization`) for what feeds it beside a tokenizer:
            AutoProcessor, AutoImageProcessor, AutoFeatureExtractor; AutoTokenizer for one that is no tokenizer.json.
    """

    name: str
    title: str
    paper: tuple[str, str]
    tasks: tuple[str, ...]
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    lora_parameters: tuple[str, ...] = ()
    feedforward_targets: tuple[str, ...] = ("down_proj",)
    norm_targets: tuple[str, ...] = ("mixer_norm", "mlp_norm", "norm")
    counted_task: str | None = None
    processors: tuple[tuple[str, str], ...] = ()

    @property
    def all_tasks(self) -> tuple[str, ...]:
        """Every task that it has a class for."""
        return tuple(dict.fromkeys(("feature-extraction", *self.tasks)))

    @property
    def model_type(self) -> str:
        """`zoo_` and the folder's name: bare names are transformers' own."""
        return f"zoo_{self.name}"

    @property
    def class_prefix(self) -> str:
        """`ZooLlm` of `llm`, `ZooMmLlm` of `mm_llm`."""
        return "Zoo" + "".join(part.capitalize() for part in self.name.split("_"))

    @property
    def tiny_preset(self) -> str:
        """The preset that tests and first steps use."""
        return f"{self.name.replace('_', '-')}-tiny"

    def module(self, kind: str) -> ModuleType:
        """Import `configuration_<name>` or `modeling_<name>`, by its first word."""
        return importlib.import_module(f"hf_zoo.modeling.{self.name}.{kind}_{self.name}")

    def processor_classes(self) -> dict[str, type]:
        """Auto class -> the class it is to give."""
        split = ((auto, *where.split(".")) for auto, where in self.processors)
        return {auto: getattr(importlib.import_module(f"hf_zoo.tokenization.{f}"), name) for auto, f, name in split}

    @property
    def config_class(self) -> type:
        """The configuration class. Imports torch."""
        return getattr(self.module("configuration"), f"{self.class_prefix}Config")

    def task_of(self, model_class: type) -> str | None:
        """The task that a class is the head for; None for one that is no head of this architecture."""
        return self.task_called(model_class.__name__)

    def task_called(self, name: str) -> str | None:
        """The task of a class by its name."""
        tasks = (*self.tasks, "feature-extraction")  # a whole model may be the head for a task, too
        return next((task for task in tasks if name == self.class_prefix + TASKS[task][1]), None)

    def model_class(self, task: str | None = None) -> type:
        """The class for a task, by default the main one. Imports the model.

        Raises:
            ValueError: the architecture has no head for the task.
        """
        task = self.tasks[0] if task is None else task
        if task not in self.all_tasks:
            known = self.all_tasks
            raise unknown_name(f"task of {self.model_type}", task, known, f"It has {', '.join(known)}.")
        return getattr(self.module("modeling"), self.class_prefix + TASKS[task][1])


ARCHITECTURES = {
    architecture.model_type: architecture
    for architecture in (
        Architecture(
            "llm",
            "dense decoder: GPT-2, LLaMA, LLaMA-2, Mistral, OLMo, Amber, CrystalCoder, BloombergGPT, StarCoder",
            ("Touvron et al. 2023", "https://arxiv.org/abs/2302.13971"),
            DECODER_TASKS,
        ),
        Architecture(
            "latent",
            "Multihead Latent Transformer: a latent space for each head, interaction between heads",
            ("Vaswani et al. 2017", "https://arxiv.org/abs/1706.03762"),
            DECODER_TASKS,
            lora_targets=("proj", "o_proj"),
        ),
        Architecture(
            "sparse_transformer",
            "strided and fixed factorised attention over long texts",
            ("Child et al. 2019", "https://arxiv.org/abs/1904.10509"),
            DECODER_TASKS,
        ),
        Architecture(
            "s4",
            "linear time-invariant state spaces: S4, S4D",
            ("Gu et al. 2021", "https://arxiv.org/abs/2111.00396"),
            DECODER_TASKS,
            lora_targets=("out_proj",),
            feedforward_targets=("out_proj",),
        ),
        Architecture(
            "mamba",
            "selective state-space model",
            ("Gu and Dao 2023", "https://arxiv.org/abs/2312.00752"),
            DECODER_TASKS,
            lora_targets=("in_proj", "x_proj", "out_proj"),
            feedforward_targets=("out_proj",),
        ),
        Architecture(
            "mamba2",
            "state-space duality: one decay a head, in matrix products",
            ("Dao and Gu 2024", "https://arxiv.org/abs/2405.21060"),
            DECODER_TASKS,
            lora_targets=("in_proj", "out_proj"),
            feedforward_targets=("out_proj",),
        ),
        Architecture(
            "moe",
            "mixture of experts: Switch, GShard, Mixtral, expert choice, DeepSeekMoE, hierarchical",
            ("Jiang et al. 2024", "https://arxiv.org/abs/2401.04088"),
            DECODER_TASKS,
            lora_parameters=("experts.gate_up_proj", "experts.up_proj", "experts.down_proj"),
        ),
        Architecture(
            "hybrid",
            "any token mixer with any channel mixer, by layer: Jamba and others",
            ("Lieber et al. 2024", "https://arxiv.org/abs/2403.19887"),
            DECODER_TASKS,
            lora_targets=("q_proj", "v_proj", "in_proj", "r_proj", "k_proj"),
            lora_parameters=("experts.gate_up_proj", "experts.up_proj", "experts.down_proj"),
        ),
        Architecture(
            "retro",
            "RETRO: attention to what is retrieved for each chunk of the text",
            ("Borgeaud et al. 2021", "https://arxiv.org/abs/2112.04426"),
            DECODER_TASKS,
        ),
        Architecture(
            "mla",
            "multi-head latent attention: DeepSeek-V2, DeepSeek-V3",
            ("DeepSeek-AI 2024", "https://arxiv.org/abs/2405.04434"),
            DECODER_TASKS,
            lora_targets=("q_proj", "q_b_proj", "kv_b_proj", "o_proj"),
            lora_parameters=("experts.gate_up_proj", "experts.down_proj"),
        ),
        Architecture(
            "mlm",
            "masked language model: BERT, BioBERT, ClinicalBERT, PubMedBERT, FinBERT",
            ("Devlin et al. 2018", "https://arxiv.org/abs/1810.04805"),
            ENCODER_TASKS,
            counted_task="feature-extraction",
        ),
        Architecture(
            "longformer",
            "encoder for long texts: a window and global tokens",
            ("Beltagy et al. 2020", "https://arxiv.org/abs/2004.05150"),
            tuple(t for t in ENCODER_TASKS if t not in ("pre-training", "next-sentence-prediction")),
            counted_task="feature-extraction",
        ),
        Architecture(
            "bigbird",
            "encoder for long texts: global, neighbouring and random blocks",
            ("Zaheer et al. 2020", "https://arxiv.org/abs/2007.14062"),
            tuple(t for t in ENCODER_TASKS if t != "next-sentence-prediction"),
            counted_task="feature-extraction",
        ),
        Architecture(
            "hibert",
            "encoder for long texts and records: segments, then documents; HAT, Hi-BEHRT",
            ("Chalkidis et al. 2022", "https://arxiv.org/abs/2210.05529"),
            tuple(t for t in ENCODER_TASKS if t != "next-sentence-prediction"),
            counted_task="feature-extraction",
            processors=(("AutoProcessor", "hibert_processor.HibertProcessor"),),
        ),
        Architecture(
            "deberta",
            "disentangled attention: DeBERTa, versions 1 to 3",
            ("He et al. 2020", "https://arxiv.org/abs/2006.03654"),
            tuple(task for task in ENCODER_TASKS if task != "next-sentence-prediction"),
            counted_task="feature-extraction",
        ),
        Architecture(
            "slm",
            "small language model: linear and local attention, low-rank and shared weights, ALBERT",
            ("Katharopoulos et al. 2020", "https://arxiv.org/abs/2006.16236"),
            tuple(dict.fromkeys(("causal-lm", *ENCODER_TASKS))),
            counted_task="feature-extraction",
        ),
        Architecture(
            "seq2seq",
            "encoder-decoder: the transformer of 2017, T5, T5 1.1, CodeT5",
            ("Raffel et al. 2019", "https://arxiv.org/abs/1910.10683"),
            ENCODER_DECODER_TASKS,
            norm_targets=("mixer_norm", "cross_norm", "mlp_norm", "norm"),
        ),
        Architecture(
            "fid",
            "Fusion-in-Decoder: passages read apart, answered from together",
            ("Izacard and Grave 2020", "https://arxiv.org/abs/2007.01282"),
            ("seq2seq-lm",),
            norm_targets=("mixer_norm", "cross_norm", "mlp_norm", "norm"),
        ),
        Architecture(
            "rwkv4",
            "RWKV-4: attention that decays, run as a recurrence",
            ("Peng et al. 2023", "https://arxiv.org/abs/2305.13048"),
            DECODER_TASKS,
            lora_targets=("r_proj", "k_proj", "v_proj", "o_proj"),
        ),
        Architecture(
            "rwkv6",
            "RWKV-6 and RWKV-5: a matrix memory that decays",
            ("Peng et al. 2024", "https://arxiv.org/abs/2404.05892"),
            DECODER_TASKS,
            lora_targets=("r_proj", "k_proj", "v_proj", "o_proj"),
            processors=(("AutoTokenizer", "rwkv_world.RwkvWorldTokenizer"),),
        ),
        Architecture(
            "rwkv7",
            "RWKV-7: a recurrence under the generalised delta rule",
            ("Peng et al. 2025", "https://arxiv.org/abs/2503.14456"),
            DECODER_TASKS,
            lora_targets=("r_proj", "k_proj", "v_proj", "o_proj"),
            processors=(("AutoTokenizer", "rwkv_world.RwkvWorldTokenizer"),),
        ),
        Architecture(
            "lcm",
            "large concept model: tokens and concepts, a knowledge graph that can be edited, answers by hops",
            ("LCM team 2024", "https://arxiv.org/abs/2412.08821"),
            (*DECODER_TASKS, "graph-question-answering", "concept-prediction"),
        ),
        Architecture(
            "concept_predictor",
            "next-concept prediction over vectors of sentences: regression, diffusion in one or two towers, codes",
            ("LCM team 2024", "https://arxiv.org/abs/2412.08821"),
            ("concept-prediction",),
        ),
        Architecture(
            "gato",
            "Gato: one decoder for text, images, observations and actions",
            ("Reed et al. 2022", "https://arxiv.org/abs/2205.06175"),
            DECODER_TASKS,
            processors=(("AutoProcessor", "gato_processor.ZooGatoProcessor"),),
        ),
        Architecture(
            "tabular",
            "transformers over the columns of a table: FT-Transformer, TabTransformer",
            ("Gorishniy et al. 2021", "https://arxiv.org/abs/2106.11959"),
            ("sequence-classification", "pre-training"),
            processors=(("AutoProcessor", "tabular_processor.ZooTabularProcessor"),),
        ),
        Architecture(
            "vit",
            "vision transformer: ViT, ViT-22B, the towers of CLIP, SigLIP, EVA-CLIP, EVA2-CLIP",
            ("Dosovitskiy et al. 2020", "https://arxiv.org/abs/2010.11929"),
            ("image-classification", "masked-image-modeling"),
            counted_task="feature-extraction",
        ),
        Architecture(
            "nfnet",
            "convolutional vision tower without norms: NFNet, the eye of Flamingo",
            ("Brock et al. 2021", "https://arxiv.org/abs/2102.06171"),
            ("image-classification",),
            lora_targets=("squeeze", "excite"),  # an update of a standardised convolution could not be merged
            feedforward_targets=("excite",),
            norm_targets=("excite",),  # what scales channels where there is no norm
            counted_task="feature-extraction",
        ),
        Architecture(
            "clip",
            "images and texts in one space, over any two towers: CLIP, SigLIP's loss",
            ("Radford et al. 2021", "https://arxiv.org/abs/2103.00020"),
            ("zero-shot-image-classification",),
            lora_targets=("q_proj", "v_proj", "query", "value"),
        ),
        Architecture(
            "vlm",
            "images and text in one model: early, late, interleaved and joint fusion; LLaVA, LLaVA-1.5",
            ("Liu et al. 2023", "https://arxiv.org/abs/2304.08485"),
            ("image-text-to-text", "sequence-classification"),
            lora_targets=("q_proj", "v_proj", "query", "value"),
            processors=(("AutoProcessor", "vlm_processor.ZooVlmProcessor"),),
        ),
        Architecture(
            "lam",
            "large action model over any decoder: tools by description, arguments, options, world model, memory; xLAM",
            ("Zhang et al. 2024", "https://arxiv.org/abs/2409.03215"),
            ("causal-lm",),
        ),
        Architecture(
            "dpr",
            "dual encoder for retrieval, over any encoder, and its reader",
            ("Karpukhin et al. 2020", "https://arxiv.org/abs/2004.04906"),
            ("feature-extraction", "question-answering"),
            lora_targets=("q_proj", "v_proj", "query", "value"),
        ),
        Architecture(
            "beats",
            "transformer over patches of a spectrogram, with its acoustic tokenizers: BEATs",
            ("Chen et al. 2022", "https://arxiv.org/abs/2212.09058"),
            ("audio-classification", "pre-training"),
            counted_task="feature-extraction",
            processors=(("AutoFeatureExtractor", "beats_feature_extractor.ZooBeatsFeatureExtractor"),),
        ),
        Architecture(
            "cformer",
            "C-Former: integrate-and-fire over any acoustic encoder, the ear of X-LLM",
            ("Chen et al. 2023", "https://arxiv.org/abs/2305.04160"),
            ("automatic-speech-recognition",),
            lora_targets=("q_proj", "v_proj", "query", "value", "linear_q", "linear_v"),
            counted_task="feature-extraction",
        ),
        Architecture(
            "imagebind",
            "images, texts, sounds, depth, heat and motion in one space, bound by images",
            ("Girdhar et al. 2023", "https://arxiv.org/abs/2305.05665"),
            ("zero-shot-image-classification",),
            processors=(("AutoProcessor", "imagebind_processor.ZooImagebindProcessor"),),
        ),
        Architecture(
            "point_bert",
            "transformer over groups of points: Point-BERT, the 3D encoder of ULIP",
            ("Yu et al. 2021", "https://arxiv.org/abs/2111.14819"),
            ("sequence-classification", "pre-training"),
            counted_task="feature-extraction",
            processors=(("AutoProcessor", "point_processor.ZooPointProcessor"),),
        ),
        Architecture(
            "meta_transformer",
            "Meta-Transformer: twelve modalities through one frozen encoder",
            ("Zhang et al. 2023", "https://arxiv.org/abs/2307.10802"),
            ("sequence-classification", "token-classification"),
            counted_task="feature-extraction",
            processors=(("AutoProcessor", "meta_transformer_processor.ZooMetaTransformerProcessor"),),
        ),
        Architecture(
            "sam",
            "Segment Anything: masks from points, boxes, masks and text",
            ("Kirillov et al. 2023", "https://arxiv.org/abs/2304.02643"),
            ("mask-generation",),
            lora_targets=("qkv_proj", "q_proj", "v_proj"),
            norm_targets=("mixer_norm", "mlp_norm", "self_norm", "token_norm", "patch_norm", "final_norm"),
            processors=(
                ("AutoProcessor", "sam_processor.ZooSamProcessor"),
                ("AutoImageProcessor", "sam_processor.ZooSamImageProcessorPil"),
            ),
        ),
    )
}


def list_architectures() -> list[str]:
    """Every `model_type` of the zoo, sorted."""
    return sorted(ARCHITECTURES)


def find_architecture(model_type: str) -> Architecture:
    """The line of the table for a `model_type`; the prefix `zoo_` may be left out.

    Raises:
        ValueError: there is none; the nearest is named.
    """
    for name in (model_type, f"zoo_{model_type}"):
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    raise unknown_name("architecture", model_type, ARCHITECTURES)


def zoo_parts(config: "PreTrainedConfig") -> dict[str, "PreTrainedConfig"]:
    """Field -> config of those parts of a composite model that are the zoo's; empty for other models."""
    parts = {name: getattr(config, name) for name in config.sub_configs}
    return {name: part for name, part in parts.items() if part is not None and part.model_type in ARCHITECTURES}
