"""grpcurl, which knows nothing of the contract but what reflection tells."""

import json
import subprocess

from features import SETTINGS, feature, run

SESSIONS, ORCHESTRATOR = SETTINGS["CONCERTO_SESSIONS_TARGET"], SETTINGS["CONCERTO_ORCHESTRATOR_TARGET"]
BEARER = ("-H", f"authorization: Bearer {SETTINGS['CONCERTO_TOKEN']}")


def grpcurl(*arguments: str) -> str:
    done = subprocess.run(["grpcurl", "-plaintext", *arguments], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def call(target: str, rpc: str, **message: object) -> list[dict]:
    """Call an rpc and return its answers."""
    output = grpcurl(*BEARER, "-d", json.dumps(message), target, rpc)
    reader, answers = json.JSONDecoder(), []
    while output := output.lstrip():
        answer, end = reader.raw_decode(output)
        answers.append(answer)
        output = output[end:]
    return answers


@feature("lists and describes")
def _() -> None:
    listed = grpcurl(SESSIONS, "list").split()
    assert "concerto.sessions.v1.SessionsService" in listed, listed
    assert "grpc.reflection.v1.ServerReflection" in listed, listed
    described = grpcurl(SESSIONS, "describe")
    assert "rpc AppendMessages" in described, described
    assert "Failed" not in described, described
    assert "bool include_contents = 4" in grpcurl(SESSIONS, "describe", "concerto.sessions.v1.AppendMessagesRequest")


@feature("an rpc with a token")
def _() -> None:
    (created,) = call(SESSIONS, "concerto.sessions.v1.SessionsService/CreateSession", name="Études")
    assert created["session"]["name"] == "Études", created


@feature("an answer, event by event")
def _() -> None:
    (created,) = call(SESSIONS, "concerto.sessions.v1.SessionsService/CreateSession")
    asked = {"sessionId": created["session"]["id"], "turn": {"content": "Hello"}}
    answers = call(ORCHESTRATOR, "concerto.orchestrator.v1.OrchestratorService/StreamTurn", **asked)
    last = answers[-1]["event"]
    # By the names of the contract: the descriptors that reflection has in Python do not say others.
    assert last.get("run_finished", {}).get("state") == "RUN_STATE_SUCCEEDED", last


@feature("errors have a reason")
def _() -> None:
    asked = json.dumps({"sessionId": "7f9c24e8-3b12-4fef-91e0-56a2d5a0b1c3"})
    output = grpcurl(*BEARER, "-d", asked, SESSIONS, "concerto.sessions.v1.SessionsService/GetSession")
    assert "Code: NotFound" in output, output
    assert "SESSION_NOT_FOUND" in output, output


run()
