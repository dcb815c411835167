"""Request bodies taken apart."""

import base64
import gzip

import orjson
import pytest

from tests.support.multipart import FORM, form
from transformer.errors import InvalidRequest, PayloadTooLarge, ServingError, UnsupportedMedia
from transformer.rest.body import _unpack, read_instances, read_items
from transformer.rest.multipart import read_parts


def test_read_parts_gives_names_and_bytes_in_order() -> None:
    binary = bytes(range(256)) * 3 + b"\r\n--X not a boundary"
    assert read_parts(form(("image", binary), ("other", b""), ("image", b"2")), FORM, max_parts=3) == [
        ("image", binary),
        ("other", b""),
        ("image", b"2"),
    ]


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (form(("image", b"1")), "multipart/form-data", "no boundary"),
        (form(("image", b"1"))[:-12], FORM, "without the closing boundary"),
        (b"no form at all", FORM, "multipart/form-data"),
        (form(("picture", b"1")), FORM, "got fields 'picture', expected one or more files named 'image'"),
        (b"", FORM, "got 0 bytes, expected image"),
        (b"", "application/json", "got 0 bytes"),
        (b"{", "application/json", "broken JSON"),
        (b"[]", "application/json", "expected a row"),
        (b"5", "application/json", "expected a row"),
        (b"NaN", "application/json", "broken JSON"),
    ],
)
def test_read_items_refuses(body: bytes, content_type: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_items(body, content_type, max_items=1024)


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "video/mp4"])
def test_read_items_names_the_content_types_it_takes(content_type: str) -> None:
    with pytest.raises(UnsupportedMedia, match="expected image/\\*, multipart/form-data or application/json"):
        read_items(b"x", content_type, max_items=1024)


@pytest.mark.parametrize(
    ("body", "rows", "many"),
    [
        (b"[1, 2]", [[1, 2]], False),
        (b"[[1, 2]]", [[1, 2]], True),
        (b'{"a": 1}', [{"a": 1}], False),
        (b'[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}], True),
    ],
)
def test_read_items_takes_rows_one_or_many(body: bytes, rows: list[object], many: bool) -> None:
    items = read_items(body, "application/json; charset=utf-8", max_items=1024)
    assert (items.rows, items.many, items.images) == (rows, many, [])


def test_read_items_takes_pictures() -> None:
    assert read_items(b"jpeg", "image/jpeg", max_items=1024).images == [b"jpeg"]
    two = read_items(form(("image", b"1"), ("image", b"2")), FORM, max_items=1024)
    assert (two.images, two.many) == ([b"1", b"2"], True)
    assert not read_items(form(("image", b"1")), FORM, max_items=1024).many


def test_read_instances_takes_pictures_rows_and_parameters() -> None:
    text = base64.b64encode(b"jpeg").decode()
    document = {"instances": [{"image": {"b64": text}}], "parameters": {"iou": 0.5}}
    items = read_instances(orjson.dumps(document), "application/json")
    assert (items.images, items.parameters) == ([b"jpeg"], {"iou": 0.5})
    assert read_instances(b'{"instances": [[1, 2], {"a": 1}]}', "").rows == [[1, 2], {"a": 1}]
    assert read_instances(b"jpeg", "image/jpeg").images == [b"jpeg"]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "instances"),
        ({}, "instances"),
        ({"instances": 5}, "instances"),
        ({"instances": []}, "got none"),
        ({"instances": [[1]], "parameter": {}}, "got \\['parameter'\\] beside"),
        ({"instances": [[1]], "parameters": []}, "parameters: got list"),
        ({"instances": [{"image": {"b64": "AA=="}}, [1]]}, "pictures and rows together"),
        ({"instances": [{"image": {"b64": "A"}}]}, "instance 0: image: broken base64"),
        ({"instances": [{"image": {"b64": "!!!!"}}]}, "broken base64"),
        ({"instances": [{"image": {"b64": "\u00e9"}}]}, "broken base64"),
        ({"instances": [{"image": "AA=="}]}, 'expected {"b64"'),
        ({"instances": [{"image": {"b64": 5}}]}, 'expected {"b64"'),
    ],
)
def test_read_instances_refuses(document: object, says: str) -> None:
    with pytest.raises(ServingError, match=says):
        read_instances(orjson.dumps(document), "application/json")


def test_read_parts_stops_at_the_limit() -> None:
    with pytest.raises(PayloadTooLarge, match="more than the limit of 2 parts"):
        read_parts(form(("image", b"1"), ("image", b"2"), ("image", b"3")), FORM, max_parts=2)


def test_read_parts_refuses_a_boundary_of_absurd_length() -> None:
    with pytest.raises(InvalidRequest, match="multipart/form-data"):
        read_parts(b"x", f"multipart/form-data; boundary={'y' * 300}", max_parts=2)


@pytest.mark.parametrize("body", [b"[[],[]" + b",[]" * 200_000 + b"]", b"[" + b"1," * 2**20 + b"1]", b"[" * 200_000])
def test_read_items_refuses_json_that_would_take_seconds(body: bytes) -> None:
    with pytest.raises(PayloadTooLarge, match="values is over the limit of 1048576"):
        read_items(body, "application/json", max_items=1024)


def test_boundary_that_is_everywhere_is_refused() -> None:
    with pytest.raises(PayloadTooLarge, match="more than the limit of 3 parts"):
        read_parts(form(("image", b"\r\n--XX-x" * 4)), FORM, max_parts=3)


@pytest.mark.parametrize("parts", [[b""], [b"x" * 100_000], [b"one", b"", b"two"], [bytes(2**20)]])
def test_unpack_gives_what_gzip_gives(parts: list[bytes]) -> None:
    packed = b"".join(gzip.compress(part) for part in parts)
    assert b"".join(_unpack(packed, max_bytes=2**20)) == gzip.decompress(packed)


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # in the names of tests no time may stand


@pytest.mark.parametrize(
    ("packed", "error", "says"),
    [
        (_gzip(bytes(2**20 + 1)), PayloadTooLarge, "unpacked it is more than the limit of 1048576 bytes"),
        (_gzip(bytes(2**19)) * 3, PayloadTooLarge, "unpacked it is more than the limit of 1048576 bytes"),
        (_gzip(b"") * 1001, PayloadTooLarge, "gzip of more than the limit of 1000 members"),
        (_gzip(b"some")[:-9], InvalidRequest, "broken gzip: 15 bytes end before its end"),
        (_gzip(b"some") + b"more", InvalidRequest, "broken gzip: .*incorrect header"),
        (b"some", InvalidRequest, "broken gzip: .*incorrect header"),
        (_gzip(b"some")[:-8] + bytes(8), InvalidRequest, "broken gzip: .*incorrect data check"),
        (b"", InvalidRequest, "broken gzip: 0 bytes end before its end"),
    ],
)
def test_unpack_refuses(packed: bytes, error: type[ServingError], says: str) -> None:
    with pytest.raises(error, match=says):
        b"".join(_unpack(packed, max_bytes=2**20))
