"""Embeddings by Google: the forms of AI Studio and of Vertex AI, asked for and read."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from schemas.usage import Usage
from workers.asked import Embedding
from workers.exchange import Whole
from workers.failures import Failures, read_detail
from workers.providers.base import NOT_AS_ASKED, Answer, Ask
from workers.translated import embeddings_answer

TAKES = frozenset({"dimensions", "task_type", "taskType", "title"})
_NATIVE = {"task_type": "taskType", "taskType": "taskType", "title": "title"}
_FIRST = ("gemini-embedding-001", "gemini-embedding-exp")


class _Embedding(msgspec.Struct):
    values: list[float]
    statistics: Any = None


class _Prediction(msgspec.Struct):
    embeddings: _Embedding


class _Embeddings(msgspec.Struct, rename="camel"):
    embeddings: list[_Embedding] = []
    predictions: list[_Prediction] = []
    usage_metadata: Any = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Embeddings).decode


def is_predicted(engine: str) -> bool:
    """Whether Vertex AI serves this model by `predict`, as it does all before Gemini Embedding 2
    (python-genai, `t_is_vertex_embed_content_model`)."""
    return "gemini" not in engine or engine.startswith(_FIRST)


def embed_body(
    texts: list[str], embedding: Embedding, given: Mapping[str, Raw], model: str
) -> bytes:
    """The body of batchEmbedContents; `model` with the `models/` before it."""
    more = _embedding_options(embedding, given)
    return _encode(
        {
            "requests": [
                {"model": model, "content": {"parts": [{"text": text}]}, **more} for text in texts
            ]
        }
    )


def vertex_embed_body(texts: list[str], embedding: Embedding, given: Mapping[str, Raw]) -> bytes:
    """The body of batchEmbedContents at Vertex AI."""
    more = _embedding_options(embedding, given)
    config = {"embedContentConfig": more} if more else {}
    return _encode(
        {"requests": [{"content": {"parts": [{"text": text}]}, **config} for text in texts]}
    )


def predict_body(texts: list[str], embedding: Embedding, given: Mapping[str, Raw]) -> bytes:
    """The body of predict, by which Vertex AI serves its older embedding models."""
    own = _embedding_options(embedding, given)
    parameters = {k: v for k, v in own.items() if k == "outputDimensionality"}
    about = {{"taskType": "task_type"}.get(k, k): v for k, v in own.items() if k not in parameters}
    body: dict[str, Any] = {"instances": [{"content": text, **about} for text in texts]}
    if parameters:
        body["parameters"] = parameters
    return _encode(body)


def _embedding_options(embedding: Embedding, given: Mapping[str, Raw]) -> dict[str, Any]:
    options: dict[str, Any] = {own: given[name] for name, own in _NATIVE.items() if name in given}
    if embedding.dimensions:
        options["outputDimensionality"] = embedding.dimensions
    return options


def embedded(
    got: Whole, ask: Ask, texts: list[str], embedding: Embedding, failures: Failures
) -> Answer:
    """The vectors, with the usage that was reported or else estimated from the texts.

    Raises AttemptFailed for an error object, and for what is no embedding of each text.
    """
    try:
        answer = _decode(got.body)
    except NOT_AS_ASKED as error:
        if read_detail(got.body).message:
            raise failures.told(got.body) from error
        raise failures.broken("answered with something that is no list of embeddings") from error
    each = answer.embeddings or [prediction.embeddings for prediction in answer.predictions]
    if len(each) != len(texts):
        if read_detail(got.body).message:
            raise failures.told(got.body)
        raise failures.broken(f"answered {len(texts)} texts with {len(each)} embeddings")
    return embeddings_answer(
        got,
        ask,
        failures.provider,
        [one.values for one in each],
        _usage(answer, each),
        as_base64=embedding.encoding_format == "base64",
    )


def _usage(answer: _Embeddings, each: list[_Embedding]) -> Usage | None:
    """Told for all texts together, or for each; AI Studio long told nothing."""
    if answer.usage_metadata is not None:
        counts = [_count(answer.usage_metadata, "promptTokenCount")]
    elif any(one.statistics is not None for one in each):
        counts = [_count(one.statistics, "token_count") for one in each]
    else:
        return None
    known = [count for count in counts if count is not None]
    return Usage(input=sum(known), status="reported") if len(known) == len(counts) else Usage()


def _count(said: Any, name: str) -> int | None:
    count = said.get(name) if isinstance(said, dict) else None
    return int(count) if isinstance(count, int | float) and 0 <= count < 10**12 else None
