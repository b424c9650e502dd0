import orjson
import pytest

from servicekit.errors import AppError
from servicekit.messages.json_size import MOST_VALUES, refuse_many_values, values_of

MOST = MOST_VALUES - 2  # beside the object and its list


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"not JSON",
        orjson.dumps({"x": [0] * MOST}),
        orjson.dumps({"x": "a,b[{" * MOST_VALUES}),
        orjson.dumps({"x": '\\",\\\\,"' * MOST_VALUES}),
        orjson.dumps({str(number): ",," for number in range(MOST)}),
    ],
)
def test_a_body_of_few_values_passes_whatever_its_texts_hold(body: bytes) -> None:
    refuse_many_values(body)


@pytest.mark.parametrize(
    "body",
    [
        orjson.dumps({"x": [0] * MOST_VALUES}),
        orjson.dumps({"x": [[]] * MOST_VALUES}),
        orjson.dumps({"x": [{"": "\\\\"}] * MOST_VALUES}),
        orjson.dumps({str(number): "" for number in range(MOST_VALUES + 1)}),
        b"[" * (MOST_VALUES + 1),
    ],
)
def test_a_body_of_many_values_is_refused(body: bytes) -> None:
    with pytest.raises(AppError) as caught:
        refuse_many_values(body)
    assert (caught.value.reason, caught.value.metadata["field"]) == ("FIELD_TOO_LARGE", "The body")


@pytest.mark.parametrize(
    ("content", "count"),
    [({"x": [0] * 2000}, 2001), ({"x": "a,b[{" * 2000}, 1), ({str(number): "" for number in range(2000)}, 2000)],
)
def test_values_are_counted_and_texts_are_one_each(content: object, count: int) -> None:
    assert values_of(orjson.dumps(content), exact_from=500) == count
