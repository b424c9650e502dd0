import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from concerto.options.v1 import options_pb2
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from starlette.requests import Request
from starlette.responses import Response

from gateway.document import document
from gateway.rest import comments, contract, routes
from gateway.rest.contract import INTERNAL_SERVICES, SERVICES, ContractError
from gateway.rest.schemas import Schemas
from servicekit.rpc.interceptor import policy_of

BINDINGS = contract.bindings(SERVICES)
DOCUMENT = document(BINDINGS)
Rule = dict[str, Any]


def service_of(
    *rules: Rule | None, stream: bool = False, policy: Rule | None = None, flag: str = ""
) -> ServiceDescriptor:
    """Return a service whose rpcs are bound by the rules; its request has the fields id, nested and page.

    flag: the name of one more field, which has no place in REST.
    """
    package = f"concerto.t{uuid4().hex}.v1"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.dependency.extend(["google/api/annotations.proto", "concerto/options/v1/options.proto"])
    message = file.message_type.add(name="Thing")
    text = descriptor_pb2.FieldDescriptorProto
    for number, name in enumerate(("id", "page"), start=1):
        message.field.add(name=name, number=number, type=text.TYPE_STRING, label=text.LABEL_OPTIONAL)
    if flag:
        flagged = message.field.add(name=flag, number=4, type=text.TYPE_BOOL, label=text.LABEL_OPTIONAL)
        flagged.options.Extensions[options_pb2.rpc_only] = True
    kind = f".{package}.Thing"
    message.field.add(name="nested", number=3, type=text.TYPE_MESSAGE, type_name=kind, label=text.LABEL_OPTIONAL)
    service = file.service.add(name="ThingService")
    for index, rule in enumerate(rules):
        method = service.method.add(name=f"Do{index}", input_type=kind, output_type=kind, server_streaming=stream)
        if rule is not None:
            for name, value in rule.items():
                setattr(method.options.Extensions[annotations_pb2.http], name, value)
        for name, value in (policy or {}).items():
            setattr(method.options.Extensions[options_pb2.policy], name, value)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return descriptor_pool.Default().FindServiceByName(f"{package}.ThingService")


WRONG: list[tuple[list[Rule | None], Rule, str]] = [
    ([{"get": "/a"}, {"get": "/a"}], {}, "both bound to GET /a"),
    ([{"get": "/a/{id}"}, {"get": "/a/{page}"}], {}, "both bound"),
    ([None], {}, "neither a route nor an internal_reason"),
    ([{"get": "/a"}], {"policy": {"internal_reason": "Because."}}, "both a route and an internal_reason"),
    ([{"get": "a"}], {}, "must begin with /"),
    ([{"get": "/a/{id=things/*}"}], {}, "no wildcards"),
    ([{"get": "/a/{other}"}], {}, "not a scalar field"),
    ([{"get": "/a/{nested}"}], {}, "not a scalar field"),
    ([{"post": "/a", "body": "id"}], {}, "not a message field"),
    ([{"get": "/a", "response_body": "id"}], {}, "not a message of the response"),
    ([{"get": "/a"}], {"stream": True}, "need `seq`"),
    ([{"post": "/a", "body": "*"}], {"flag": "quickly"}, "no place in REST"),
    ([{"get": "/a"}], {"flag": "in_batches"}, "need 'more'"),
]


@pytest.mark.parametrize(("rules", "options", "problem"), WRONG)
def test_a_contract_that_cannot_be_served_stops_the_start(
    rules: list[Rule | None], options: Rule, problem: str
) -> None:
    with pytest.raises(ContractError, match=problem):
        contract.bindings([service_of(*rules, **options)])


@pytest.mark.parametrize("path", ["/docs", "/a/{id}"])
def test_a_route_of_the_gateways_own_is_not_given_away(path: str) -> None:
    async def endpoint(request: Request) -> Response:
        return Response()

    taken = [routes.route(one, endpoint, "GET") for one in ("/docs", "/a/{name}", path)]
    with pytest.raises(ContractError, match="two routes"):
        routes.refuse_doubles(taken)


def test_one_path_may_have_many_methods_and_literals_go_first() -> None:
    service = service_of({"get": "/a/{id}"}, {"delete": "/a/{id}"}, {"get": "/a/new"})
    assert [(one.verb, one.path) for one in contract.bindings([service])] == [
        ("GET", "/a/new"),
        ("GET", "/a/{id}"),
        ("DELETE", "/a/{id}"),
    ]


def test_a_named_body_leaves_the_other_fields_to_the_query() -> None:
    (binding,) = contract.bindings([service_of({"post": "/a/{id}", "body": "nested"})])
    assert list(binding.query_fields) == ["page"]
    (flagged,) = contract.bindings([service_of({"get": "/a/{id}"}, flag="quickly")])
    assert "page" in flagged.query_fields
    assert "quickly" not in flagged.query_fields


def test_an_internal_rpc_has_no_route() -> None:
    assert contract.bindings([service_of(None, policy={"internal_reason": "Only services call it."})]) == []


def test_an_internal_service_states_a_reason_for_each_rpc() -> None:
    contract.check_internal(INTERNAL_SERVICES)
    assert "RunsService" in [service.name for service in INTERNAL_SERVICES]
    for rules, problem in (([{"get": "/a"}], "its service is internal"), ([None], "neither a route nor")):
        with pytest.raises(ContractError, match=problem):
            contract.check_internal([service_of(*rules)])


def test_every_service_of_the_contract_is_known() -> None:
    files = {service.file.name for service in (*SERVICES, *INTERNAL_SERVICES)}
    described = comments.load()
    named = {name for name in described if name.endswith("Service") and name.count(".") == 3}
    assert named == {service.full_name for service in (*SERVICES, *INTERNAL_SERVICES)}
    assert len(files) == len(named)


def rpcs() -> Iterator[Any]:
    for service in (*SERVICES, *INTERNAL_SERVICES):
        yield from service.methods


@pytest.mark.parametrize("method", list(rpcs()), ids=lambda method: method.name)
async def test_each_rpc_has_a_route_or_a_stated_reason(client: httpx.AsyncClient, method: Any) -> None:
    bound = [binding for binding in BINDINGS if binding.method is method]
    if not bound:
        assert policy_of(method).internal_reason
        return
    for binding in bound:
        path = binding.path.format_map({name: uuid4() for name in binding.path_fields})
        response = await client.request(binding.verb, path)
        # Whatever it answers to an empty request, the route is there.
        assert response.status_code not in (404, 405, 500)


def operations() -> list[tuple[str, str, Any]]:
    return [(path, verb, operation) for path, item in DOCUMENT["paths"].items() for verb, operation in item.items()]


def test_the_document_has_each_route_under_the_rpcs_name() -> None:
    described = {(path, verb): operation["operationId"] for path, verb, operation in operations()}
    for binding in BINDINGS:
        assert described[binding.path, binding.verb.lower()] == binding.operation_id
    assert len(set(described.values())) == len(described)


def test_every_reference_of_the_document_leads_somewhere() -> None:
    found = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                found.append(node["$ref"])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(DOCUMENT)
    assert found
    for reference in set(found):
        target: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
        assert target
    used = {reference.rsplit("/", 1)[1] for reference in found}
    assert DOCUMENT["components"]["schemas"].keys() <= used


def test_every_part_of_the_contract_is_described() -> None:
    for binding in BINDINGS:
        operation = DOCUMENT["paths"][binding.path][binding.verb.lower()]
        assert operation["description"]
        assert all(parameter["description"] for parameter in operation.get("parameters", []))
    written_by_hand = {"ErrorBody", "StreamTurnAnswer", "StreamRunAnswer"}
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert schema["description"], name
        if name not in written_by_hand:
            assert all(part["description"] for part in schema.get("properties", {}).values()), name


def test_only_anonymous_rpcs_go_without_a_token() -> None:
    for binding in BINDINGS:
        operation = DOCUMENT["paths"][binding.path][binding.verb.lower()]
        signed_in: list[Any] = [{"bearer": []}, {"ticket": []}] if binding.is_resumable else [{"bearer": []}]
        assert operation["security"] == ([] if binding.policy.anonymous else signed_in)


def test_requests_are_described_with_their_limits() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    sign_up = schemas["SignUpRequest"]
    assert sign_up["required"] == ["email", "password"]
    assert sign_up["additionalProperties"] is False
    assert sign_up["properties"]["email"]["format"] == "email"
    password = sign_up["properties"]["password"]
    assert (password["maxLength"], password["x-max-bytes"]) == (72, 72)
    messages = schemas["AppendMessagesRequest"]["properties"]["messages"]
    assert (messages["minItems"], messages["maxItems"]) == (1, 100)
    assert "session_id" not in schemas["AppendMessagesRequest"]["properties"]
    assert schemas["Role"]["enum"] == ["user", "assistant", "system", "tool"]
    page_size, *_ = DOCUMENT["paths"]["/sessions"]["get"]["parameters"]
    assert page_size["schema"]["minimum"] == 0
    path = DOCUMENT["paths"]["/sessions/{session_id}"]["get"]["parameters"][0]
    assert (path["in"], path["required"], path["schema"]["format"]) == ("path", True, "uuid")


def test_answers_are_described_as_they_are_written() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["Session"]["required"] == list(schemas["Session"]["properties"])
    assert schemas["Session"]["properties"]["created_at"]["type"] == ["string", "null"]
    created = DOCUMENT["paths"]["/sessions"]["post"]["responses"]["201"]
    assert created["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Session"}
    assert "content" not in DOCUMENT["paths"]["/sessions/{session_id}"]["delete"]["responses"]["204"]
    turn = DOCUMENT["paths"]["/sessions/{session_id}/turns"]["post"]["responses"]["200"]["content"]
    assert turn.keys() == {"text/event-stream", "application/json"}
    decoded = turn["text/event-stream"]["schema"]["contentSchema"]
    assert decoded == {"type": "array", "items": {"$ref": "#/components/schemas/RunEvent"}}
    events = [schemas[one["$ref"].rpartition("/")[2]]["properties"] for one in schemas["RunEvent"]["oneOf"]]
    assert "message.delta" in [event["event"]["const"] for event in events]


def test_the_document_is_one_of_the_version_that_it_says() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert '"itemSchema"' not in json.dumps(DOCUMENT), "a word of 3.2, which validators refuse in 3.1"


def test_a_stream_that_can_be_resumed_says_how() -> None:
    parameters = DOCUMENT["paths"]["/runs/{run_id}/events"]["get"]["parameters"]
    assert [(one["name"], one["in"]) for one in parameters] == [
        ("run_id", "path"),
        ("after_seq", "query"),
        ("Last-Event-ID", "header"),
    ]
    folded = DOCUMENT["components"]["schemas"]["StreamRunAnswer"]
    assert "tools" in folded["required"]
    assert folded["properties"]["tools"]["items"]["required"] == ["call_id", "name", "arguments", "output", "is_error"]
    names = [parameter["name"] for parameter in DOCUMENT["paths"]["/sessions/{session_id}/turns"]["post"]["parameters"]]
    assert names == ["session_id"]


def test_every_operation_describes_its_errors() -> None:
    for binding in BINDINGS:
        responses = DOCUMENT["paths"][binding.path][binding.verb.lower()]["responses"]
        assert {"400", "401", "403", "404", "409", "429", "503", "default"} <= responses.keys()


def test_a_second_message_of_one_name_is_told_apart() -> None:
    schemas = Schemas({})
    first, second = (service_of({"get": "/a"}).methods[0].output_type for _ in range(2))
    assert schemas.output(first)["$ref"].endswith("/Thing")
    assert (
        schemas.output(second)["$ref"] == f"#/components/schemas/{second.file.package.split('.')[1].capitalize()}Thing"
    )
    assert schemas.input(first)["$ref"].endswith("/ThingInput")


def test_without_the_contracts_comments_the_document_is_still_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comments, "FILE_NAME", "absent.binpb")
    bare = document(BINDINGS)
    assert bare["paths"].keys() == DOCUMENT["paths"].keys()
