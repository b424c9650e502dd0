// OpenAI's own client for Node.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { feature, settings } from "./features.mjs";

const messages = [{ role: "user", content: "Hello" }];
const parameters = { type: "object", properties: { place: { type: "string" } }, required: ["place"] };
const tools = [{ type: "function", function: { name: "look", description: "Looks somewhere.", parameters } }];
const options = { baseURL: `${settings.CONCERTO_URL}/v1`, apiKey: settings.CONCERTO_TOKEN, maxRetries: 0 };
const client = new OpenAI(options);

await feature("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.equal(names[0], "test-model");
  assert.equal((await client.models.retrieve("test-model")).id, "test-model");
});

await feature("chat", async () => {
  const answer = await client.chat.completions.create({ model: "test-model", messages });
  assert.match(answer.choices[0].message.content, /^You said: Hello/);
  assert.ok(answer.usage.completion_tokens > 0);
});

await feature("stream, with what it used", async () => {
  const stream = client.chat.completions.stream({
    model: "test-model",
    messages,
    stream_options: { include_usage: true },
  });
  let text = "";
  stream.on("content", (delta) => {
    text += delta;
  });
  const answer = await stream.finalChatCompletion();
  assert.match(text, /^You said: Hello/);
  assert.equal(answer.choices[0].message.content, text);
  assert.ok(answer.usage.completion_tokens > 0);
});

await feature("tools, and their results, by its own runner", async () => {
  const places = [];
  const look = { function: (place) => void places.push(place) ?? "empty", parse: JSON.parse, ...tools[0].function };
  const runner = client.chat.completions.runTools({
    model: "test-model",
    messages,
    tools: [{ type: "function", function: look }],
  });
  assert.match(await runner.finalContent(), /^You said/);
  assert.deepEqual(places, [{ place: "x" }]);
});

await feature("completions of the older API", async () => {
  const whole = await client.completions.create({ model: "test-model", prompt: "Hello" });
  assert.match(whole.choices[0].text, /^You said: Hello/);
  let text = "";
  for await (const chunk of await client.completions.create({ model: "test-model", prompt: "Hello", stream: true })) {
    text += chunk.choices[0]?.text ?? "";
  }
  assert.equal(text, whole.choices[0].text);
});

await feature("a stream that is aborted", async () => {
  const controller = new AbortController();
  const asked = { model: "fault:slow", messages, stream: true };
  const stream = await client.chat.completions.create(asked, { signal: controller.signal });
  let count = 0;
  for await (const chunk of stream) {
    if (chunk.choices[0].delta.content && ++count === 3) controller.abort();
  }
  assert.ok(count >= 3 && count < 1000, `${count} chunks`);
});

await feature("errors are those that it knows", async () => {
  const ask = (model, asking = client) => asking.chat.completions.create({ model, messages });
  await assert.rejects(ask("fault:rate_limited"), OpenAI.RateLimitError);
  await assert.rejects(ask("fault:too_long"), OpenAI.BadRequestError);
  await assert.rejects(ask("test-model", new OpenAI({ ...options, apiKey: "no-token" })), OpenAI.AuthenticationError);
});

await feature("a page of an allowed origin may send what it sends", async () => {
  // What a browser does before the request: it asks for every header that is not safe by itself.
  const safe = new Set(["accept", "accept-language", "content-language"]);
  const inPage = async (url, init) => {
    const names = [...new Headers(init.headers).keys()].filter((name) => !safe.has(name));
    const asked = { Origin: settings.CONCERTO_PAGE, "Access-Control-Request-Method": init.method };
    const headers = { ...asked, "Access-Control-Request-Headers": names.join(",") };
    const preflight = await fetch(url, { method: "OPTIONS", headers });
    assert.equal(preflight.status, 200, await preflight.text());
    const allowed = preflight.headers.get("access-control-allow-headers").toLowerCase().split(/, */);
    assert.deepEqual(names.filter((name) => !allowed.includes(name)), []);
    const answer = await fetch(url, { ...init, headers: { ...Object.fromEntries(new Headers(init.headers)), ...asked } });
    assert.equal(answer.headers.get("access-control-allow-origin"), settings.CONCERTO_PAGE);
    return answer;
  };
  const page = new OpenAI({ ...options, fetch: inPage, organization: "org", project: "project" });
  const answer = await page.chat.completions.create({ model: "test-model", messages });
  assert.match(answer.choices[0].message.content, /^You said: Hello/);
});
