// The OpenAI Node SDK as a client of the gateway at NEXUS_URL, with the key in NEXUS_KEY.
// Its provider of the model `up-model` answers as the request header `x-scene` says.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const baseURL = `${process.env.NEXUS_URL}/v1`;
const apiKey = process.env.NEXUS_KEY;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "Hi" }];

const ask = (body, scene) =>
  client.chat.completions.create(
    { model: "up-model", messages, ...body },
    { headers: { "x-scene": scene } },
  );

test("an answer", async () => {
  const answer = await ask({}, "whole");
  assert.equal(answer.choices[0].message.content, "Hello there");
  assert.equal(answer.model, "up-model");
  assert.equal(answer.usage.total_tokens, 10);
  assert.equal(answer.provider, "up");
  assert.equal(answer.cost.total_cost, 0.0000475);
  assert.equal(answer._request_id, `req_${answer.id.replace("chatcmpl-", "")}`);
});

test("a stream", async () => {
  const texts = [];
  const extended = [];
  for await (const chunk of await ask({ stream: true }, "stream")) {
    texts.push(chunk.choices[0].delta.content ?? "");
    extended.push("cost" in chunk);
  }
  assert.deepEqual(texts, ["Hel", "lo", ""]);
  assert.deepEqual(extended, [false, false, true]);
});

test("usage of a stream", async () => {
  const chunks = [];
  const options = { stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await ask(options, "stream")) chunks.push(chunk);
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.equal(chunks.at(-1).usage.prompt_tokens, 7);
});

test("a tool called in pieces", async () => {
  const tools = [{ type: "function", function: { name: "weather", parameters: {} } }];
  const runner = client.chat.completions.stream(
    { model: "up-model", messages, tools },
    { headers: { "x-scene": "tool" } },
  );
  const answer = await runner.finalChatCompletion();
  const [call] = answer.choices[0].message.tool_calls;
  assert.equal(call.function.name, "weather");
  assert.deepEqual(JSON.parse(call.function.arguments), { city: "Oslo" });
  assert.equal(answer.choices[0].finish_reason, "tool_calls");
});

test("leaving a stream stops the provider", async () => {
  const stream = await ask({ stream: true }, "endless");
  for await (const chunk of stream) {
    assert.equal(chunk.choices[0].delta.content, "more");
    break;
  }
  assert.ok(stream.controller.signal.aborted);
});

test("a raw response", async () => {
  const { data, response, request_id } = await ask({}, "whole").withResponse();
  assert.equal(response.headers.get("x-request-id"), request_id);
  assert.equal(data.choices.length, 1);
});

test("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("mock") && names.includes("up-model"));
  assert.equal((await client.models.retrieve("up/other")).id, "up/other");
});

test("a wrong key", async () => {
  const stranger = new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(stranger.chat.completions.create({ model: "mock", messages }), (error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError);
    assert.equal(error.type, "authentication_error");
    assert.equal(error.code, "invalid_api_key");
    assert.match(error.requestID, /^req_/);
    return true;
  });
});

test("an unknown model", async () => {
  await assert.rejects(client.chat.completions.create({ model: "none", messages }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, "model_not_found");
    assert.equal(error.param, "model");
    assert.match(error.message, /The model 'none' does not exist/);
    return true;
  });
});

test("a parameter out of range", async () => {
  await assert.rejects(ask({ temperature: 3 }, "whole"), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    return true;
  });
});

test("a rate limit of the provider", async () => {
  await assert.rejects(ask({}, "busy"), (error) => {
    assert.ok(error instanceof OpenAI.RateLimitError);
    assert.equal(error.headers.get("retry-after"), "99");
    assert.equal(error.error.provider, "up");
    return true;
  });
});

test("a stream that breaks", async () => {
  const texts = [];
  const read = async () => {
    for await (const chunk of await ask({ stream: true }, "broken")) {
      texts.push(chunk.choices[0].delta.content);
    }
  };
  await assert.rejects(read, (error) => {
    assert.ok(error instanceof OpenAI.APIError);
    assert.equal(error.type, "provider_error");
    return true;
  });
  assert.deepEqual(texts, ["Hel", "lo"]);
});

test("a token beside an unused key", async () => {
  const defaultHeaders = { "X-Nexus-Token": apiKey };
  const other = new OpenAI({ baseURL, apiKey: "unused", defaultHeaders });
  const answer = await other.chat.completions.create({ model: "mock", messages });
  assert.equal(answer.choices[0].finish_reason, "stop");
});

test("many calls over one connection pool", async () => {
  const calls = Array.from({ length: 50 }, () =>
    client.chat.completions.create({ model: "mock", messages }),
  );
  const ids = (await Promise.all(calls)).map((answer) => answer.id);
  assert.equal(new Set(ids).size, 50);
});
