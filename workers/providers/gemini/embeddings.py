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
_PREDICTED = {"taskType": "task_type"}
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


def texts_at_once(engine: str, *, vertex: bool) -> int:
    """How many texts one request may have (the pages on embeddings of both)."""
    if not vertex:
        return 100
    return 1 if engine.startswith(_FIRST) else 250


def embed_request(
    texts: list[str],
    embedding: Embedding,
    given: Mapping[str, Raw],
    model: str,
    *,
    vertex: bool,
) -> tuple[str, bytes]:
    """The method that embeds these texts, and its body; `model` is with the `models/` before it."""
    options: dict[str, Any] = {own: given[name] for name, own in _NATIVE.items() if name in given}
    if embedding.dimensions:
        options["outputDimensionality"] = embedding.dimensions
    if vertex and is_predicted(model.rpartition("/")[2]):
        return "predict", _encode(_predict_body(texts, options))
    more = {"model": model, **options}
    if vertex:
        more = {"embedContentConfig": options} if options else {}
    requests = [{"content": {"parts": [{"text": text}]}, **more} for text in texts]
    return "batchEmbedContents", _encode({"requests": requests})


def _predict_body(texts: list[str], options: dict[str, Any]) -> dict[str, Any]:
    parameters = {k: v for k, v in options.items() if k == "outputDimensionality"}
    about = {_PREDICTED.get(k, k): v for k, v in options.items() if k not in parameters}
    body: dict[str, Any] = {"instances": [{"content": text, **about} for text in texts]}
    return {**body, "parameters": parameters} if parameters else body


class Batch:
    """The answer to one request: the vectors of `count` texts, and what was reported for them.

    Raises AttemptFailed for an error object, and for what is no embedding of each text.
    """

    def __init__(self, got: Whole, count: int, failures: Failures) -> None:
        try:
            answer = _decode(got.body)
        except NOT_AS_ASKED as error:
            if read_detail(got.body).message:
                raise failures.told(got.body) from error
            raise failures.broken("answered with what is no list of embeddings") from error
        each = answer.embeddings or [one.embeddings for one in answer.predictions]
        if len(each) != count:
            if read_detail(got.body).message:
                raise failures.told(got.body)
            raise failures.broken("answered with another number of embeddings than texts")
        self.got = got
        self.vectors = [one.values for one in each]
        self.usage = _usage(answer, each)


def embedded(batches: list[Batch], ask: Ask, embedding: Embedding, failures: Failures) -> Answer:
    """All batches as one answer."""
    return embeddings_answer(
        batches[0].got,
        ask,
        failures.provider,
        [vector for batch in batches for vector in batch.vectors],
        _sum([batch.usage for batch in batches]),
        as_base64=embedding.encoding_format == "base64",
    )


def _sum(usages: list[Usage | None]) -> Usage | None:
    """The usage of all batches, as well known as that of the least known one."""
    for usage in usages:
        if usage is None or usage.status == "unknown":
            return usage
    return Usage(input=sum(usage.input for usage in usages if usage), status="reported")


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
