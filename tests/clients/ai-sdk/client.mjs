// Vercel's AI SDK, with Concerto as an OpenAI-compatible provider.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { feature, settings } from "./features.mjs";

const provider = createOpenAICompatible({
  name: "concerto",
  baseURL: `${settings.CONCERTO_URL}/v1`,
  apiKey: settings.CONCERTO_TOKEN,
  includeUsage: true,
});
const model = provider.chatModel("test-model");
const prompt = "Hello";

await feature("chat", async () => {
  const { text, usage } = await generateText({ model, prompt });
  assert.match(text, /^You said: Hello/);
  assert.ok(usage.outputTokens > 0);
});

await feature("stream, with what it used", async () => {
  const answer = streamText({ model, prompt });
  let text = "";
  for await (const piece of answer.textStream) text += piece;
  assert.match(text, /^You said: Hello/);
  assert.ok((await answer.usage).outputTokens > 0);
});

await feature("tools, and their results", async () => {
  const places = [];
  const look = tool({
    description: "Looks somewhere.",
    inputSchema: z.object({ place: z.string() }),
    execute: async ({ place }) => {
      places.push(place);
      return "empty";
    },
  });
  const answer = await generateText({ model, prompt, tools: { look }, stopWhen: stepCountIs(3) });
  assert.deepEqual(places, ["x"]);
  assert.match(answer.text, /^You said/);
});

await feature("completions of the older API", async () => {
  const { text } = await generateText({ model: provider.completionModel("test-model"), prompt });
  assert.match(text, /You said: /);
});

await feature("a stream that is aborted", async () => {
  const controller = new AbortController();
  const answer = streamText({ model: provider.chatModel("fault:slow"), prompt, abortSignal: controller.signal });
  let count = 0;
  for await (const part of answer.fullStream) {
    if (part.type === "text-delta" && ++count === 3) controller.abort();
  }
  assert.ok(count >= 3 && count < 1000, `${count} pieces`);
});

await feature("errors are those that it knows", async () => {
  const ask = (name) => generateText({ model: provider.chatModel(name), prompt, maxRetries: 0 });
  const is = (status) => (error) => APICallError.isInstance(error) && error.statusCode === status;
  await assert.rejects(ask("fault:rate_limited"), is(429));
  await assert.rejects(ask("fault:too_long"), is(400));
});
