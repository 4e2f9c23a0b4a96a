"""Checkpoints of transformers' DPR as zoo models: two folders, one an encoder, become one model."""

from transformers import AutoConfig, BertConfig, BertModel, DPRContextEncoder, DPRQuestionEncoder, DPRReader

from hf_zoo.modeling.dpr.modeling_dpr import ZooDprForQuestionAnswering, ZooDprModel


def open_dpr(question: str, passage: str, **options: object) -> ZooDprModel:
    """A retriever from folders or Hub names of a `DPRQuestionEncoder` and a `DPRContextEncoder`.

    Args:
        question: such as facebook/dpr-question_encoder-single-nq-base.
        passage: such as facebook/dpr-ctx_encoder-single-nq-base.
        options: further fields of the config.

    Raises:
        ValueError: a folder holds another model.
    """
    questions = _checked(question, DPRQuestionEncoder).question_encoder
    passages = _checked(passage, DPRContextEncoder).ctx_encoder
    size = questions.config.projection_dim
    encoders = [_as_bert(tower.bert_model) for tower in (questions, passages)]
    model = ZooDprModel.from_encoders(*encoders, projection_dim=size, **options)
    if size:
        for tower, theirs in ((model.question_tower, questions), (model.passages, passages)):
            tower.projection.load_state_dict(theirs.encode_proj.state_dict())
    return model.eval()


def open_dpr_reader(reader: str) -> ZooDprForQuestionAnswering:
    """A reader from a folder or Hub name of a `DPRReader`, such as facebook/dpr-reader-single-nq-base."""
    theirs = _checked(reader, DPRReader).span_predictor
    encoder = _as_bert(theirs.encoder.bert_model)
    return ZooDprForQuestionAnswering.from_parts(encoder, theirs.qa_outputs, theirs.qa_classifier).eval()


def _checked(name: str, model_class: type) -> DPRQuestionEncoder | DPRContextEncoder | DPRReader:
    found = (AutoConfig.from_pretrained(name).architectures or ["no named model"])[0]
    if found != model_class.__name__:
        raise ValueError(f"{name} holds a {found}, and a {model_class.__name__} is needed here")
    return model_class.from_pretrained(name)


def _as_bert(model: BertModel) -> BertModel:
    """The same encoder under BERT's own config, without what DPR adds to it."""
    theirs = model.config.to_dict()
    config = BertConfig(**{name: value for name, value in theirs.items() if name in BertConfig().to_dict()})
    config.model_type = BertConfig.model_type
    bert = BertModel(config, add_pooling_layer=False)
    bert.load_state_dict(model.state_dict())
    return bert
