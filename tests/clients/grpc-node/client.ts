// A client that protoc-gen-es makes of the contract, over Connect's transport for gRPC, with their own settings.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
// @ts-expect-error It is the suite's own and has no types.
import { feature, settings } from "./features.mjs";
import { OrchestratorService } from "./gen/concerto/orchestrator/v1/orchestrator_pb.js";
import { RunState } from "./gen/concerto/sessions/v1/runs_pb.js";
import { Role, SessionsService } from "./gen/concerto/sessions/v1/sessions_pb.js";
import { ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";

const MEBIBYTE = 2 ** 20;
const UNKNOWN = "7f9c24e8-3b12-4fef-91e0-56a2d5a0b1c3";

const signedIn: Interceptor = (next) => (request) => {
  request.header.set("authorization", `Bearer ${settings.CONCERTO_TOKEN}`);
  return next(request);
};
const transport = (target: string, interceptors: Interceptor[] = [signedIn]) =>
  createGrpcTransport({ baseUrl: `http://${target}`, interceptors, readMaxBytes: 4 * MEBIBYTE });
const client = createClient(SessionsService, transport(settings.CONCERTO_SESSIONS_TARGET));
const answering = createClient(OrchestratorService, transport(settings.CONCERTO_ORCHESTRATOR_TARGET));

const newSession = async () => (await client.createSession({})).session?.id ?? "";

await feature("its types fit", async () => {
  execFileSync("tsc", ["--project", "."], { encoding: "utf8" });
});

await feature("an rpc with a token", async () => {
  const { session } = await client.createSession({ name: "Études" });
  assert.equal((await client.getSession({ sessionId: session?.id })).session?.name, "Études");
});

await feature("five mebibytes, stored and read in pages", async () => {
  const sessionId = await newSession();
  const messages = Array.from({ length: 5 }, () => ({ role: Role.USER, content: "x".repeat(MEBIBYTE) }));
  const appended = await client.appendMessages({ sessionId, messages });
  assert.deepEqual(appended.messages.map((message) => message.order), [1, 2, 3, 4, 5]);
  let [size, pageToken] = [0, ""];
  do {
    const page = await client.listMessages({ sessionId, pageToken });
    for (const message of page.messages) size += message.content.length;
    pageToken = page.nextPageToken;
  } while (pageToken);
  assert.equal(size, 5 * MEBIBYTE);
});

await feature("an answer, event by event", async () => {
  let [said, state] = ["", RunState.UNSPECIFIED];
  for await (const { event } of answering.streamTurn({ sessionId: await newSession(), turn: { content: "Hello" } })) {
    if (event?.payload.case === "messageDelta") said += event.payload.value.text;
    if (event?.payload.case === "runFinished") state = event.payload.value.state;
  }
  assert.match(said, /^You said: Hello/);
  assert.equal(state, RunState.SUCCEEDED);
});

await feature("errors have a reason", async () => {
  const fails = async (call: Promise<unknown>, code: Code, reason: string) => {
    const error = ConnectError.from(await call.then(() => undefined, (failure: unknown) => failure));
    assert.equal(error.code, code);
    assert.deepEqual(error.findDetails(ErrorInfoSchema).map((info) => info.reason), [reason]);
  };
  await fails(client.getSession({ sessionId: UNKNOWN }), Code.NotFound, "SESSION_NOT_FOUND");
  const stranger = createClient(SessionsService, transport(settings.CONCERTO_SESSIONS_TARGET, []));
  await fails(stranger.getSession({ sessionId: UNKNOWN }), Code.Unauthenticated, "TOKEN_MISSING");
  const events = answering.streamRun({ runId: UNKNOWN })[Symbol.asyncIterator]();
  await fails(events.next(), Code.NotFound, "RUN_NOT_FOUND");
});

await feature("a deadline of a millisecond", async () => {
  for (let index = 0; index < 50; index += 1) {
    const failure: unknown = await client.listSessions({}, { timeoutMs: 1 }).then(() => undefined, (error) => error);
    if (failure !== undefined) assert.equal(ConnectError.from(failure).code, Code.DeadlineExceeded);
  }
});
process.exit();
