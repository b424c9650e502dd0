"""What the tests demand of stored files."""

from tests.support.domains import Domain

EXPECTED = Domain(helpers=frozenset({"private.has_room(text,text,uuid)"}))
