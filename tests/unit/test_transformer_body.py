"""Request bodies taken apart."""

import base64
import gzip
import zlib

import orjson
import pytest

from tests.support.multipart import FORM, form
from transformer.errors import InvalidRequest, PayloadTooLarge, ServingError, UnsupportedMedia
from transformer.rest.body import Items, decompress, read_instances, read_items
from transformer.rest.multipart import read_parts

LIMIT = 1000  # bytes of an image
JSON = "application/json"


def items(body: bytes, content_type: str, *, images: bool = False) -> Items:
    return read_items(body, content_type, max_items=1024, images=images, max_bytes=LIMIT)


def instances(document: object, *, images: bool = False) -> Items:
    return read_instances(orjson.dumps(document), JSON, images=images, max_bytes=LIMIT)


def test_read_parts_gives_names_and_bytes_in_order() -> None:
    binary = bytes(range(256)) * 3 + b"\r\n--X not a boundary"
    assert read_parts(form(("image", binary), ("other", b""), ("image", b"2")), FORM, max_parts=3) == [
        ("image", binary, True),
        ("other", b"", True),
        ("image", b"2", True),
    ]


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (form(("image", b"1")), "multipart/form-data", "no boundary"),
        (form(("image", b"1"))[:-12], FORM, "up to the closing boundary"),
        (b"no form at all", FORM, "multipart/form-data"),
        (form(("a", b"1"), ("b", b"1")), FORM, "got fields 'a', 'b', expected one or more files named 'image'"),
        (b'--XX\r\nContent-Disposition: form-data; name="file"\r\n\r\n1\r\n--XX--\r\n', FORM, "got fields 'file'"),
        (b"", FORM, "got 0 bytes, expected image"),
        (b"", "application/json", "got 0 bytes"),
        (b"{", "application/json", "broken JSON"),
        (b"[]", "application/json", "expected a row"),
        (b"5", "application/json", "expected a row"),
        (b"NaN", "application/json", "expected a row .*, an image \\(.*b64"),
        (b"[NaN", "application/json", "broken JSON"),
    ],
)
def test_read_items_rejects(body: bytes, content_type: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        items(body, content_type)


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "video/mp4"])
def test_read_items_names_the_content_types_it_takes(content_type: str) -> None:
    with pytest.raises(UnsupportedMedia, match="expected image/\\*, multipart/form-data or application/json"):
        items(b"x", content_type)


@pytest.mark.parametrize(
    ("body", "rows", "many"),
    [
        (b"[1, 2]", [[1, 2]], False),
        (b"[[1, 2]]", [[1, 2]], True),
        (b'{"a": 1}', [{"a": 1}], False),
        (b'[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}], True),
        (b'{"image": 1, "b64": "x"}', [{"image": 1, "b64": "x"}], False),  # columns may have any name
    ],
)
def test_read_items_takes_rows_one_or_many(body: bytes, rows: list[object], many: bool) -> None:
    read = items(body, "application/json; charset=utf-8")
    assert (read.rows, read.many, read.images) == (rows, many, [])


def test_read_items_takes_images() -> None:
    assert items(b"jpeg", "image/jpeg").images == [b"jpeg"]
    two = items(form(("image", b"1"), ("image", b"2")), FORM)
    assert (two.images, two.many) == ([b"1", b"2"], True)
    assert not items(form(("image", b"1")), FORM).many


@pytest.mark.parametrize("name", ["file", "files", "images[]", "upload", "photo"])
def test_files_of_a_form_are_images_if_all_have_one_name(name: str) -> None:
    assert items(form((name, b"1"), (name, b"2")), FORM).images == [b"1", b"2"]
    assert items(form((name, b"1"), ("image", b"2")), FORM).images == [b"2"]


def test_fields_of_a_form_are_parameters_if_named_so() -> None:
    field = b'--XX\r\nContent-Disposition: form-data; name="%s"\r\n\r\n0.5\r\n'
    read = items(field % b"iou" + field % b"user" + form(("file", b"1")), FORM)
    assert (read.images, read.parameters) == ([b"1"], {"iou": "0.5"})


TEXT = base64.b64encode(b"jpeg").decode()
# Forms of one image, as instances of v1 and as JSON of /predict.
IMAGES = [
    TEXT,
    {"b64": TEXT},
    {"image": {"b64": TEXT}},
    {"image": TEXT},
    {"image_bytes": {"b64": TEXT}},
    {"image_bytes": {"b64": TEXT}, "key": "1"},
    {"image": TEXT, "key": "   1"},
    {"data": TEXT, "target": 0},
    {"anything": {"b64": TEXT}},
    {"anything": TEXT},
]


@pytest.mark.parametrize("image", IMAGES)
def test_image_is_found_under_every_key(image: object) -> None:
    expected = Items(images=[b"jpeg"], many=True)
    for member in ("instances", "inputs"):
        assert instances({member: [image]}, images=True) == expected
    assert items(orjson.dumps(image), JSON, images=True).images == [b"jpeg"]
    assert items(orjson.dumps([image, TEXT]), JSON, images=True).images == [b"jpeg", b"jpeg"]


def test_read_instances_takes_images_rows_and_parameters() -> None:
    read = instances({"instances": [{"image": {"b64": TEXT}}], "parameters": {"iou": 0.5, "classes": None}})
    assert (read.images, read.parameters) == ([b"jpeg"], {"iou": 0.5})
    assert instances({"instances": [[1, 2], {"a": 1}], "parameters": None}).rows == [[1, 2], {"a": 1}]
    assert instances({"instances": [[1]], "signature_name": "serving_default"}).rows == [[1]]
    assert instances({"instances": [[1]], "inputs": None, "signature_name": None, "id": None}).rows == [[1]]
    assert instances({"instances": [{"image": 1.5, "b64": "x"}]}).rows == [{"image": 1.5, "b64": "x"}]
    for content_type in ("image/jpeg", "application/octet-stream"):
        assert read_instances(b"\xff\xd8", content_type, images=True, max_bytes=9).images == [b"\xff\xd8"]
    read = read_instances(b' {"instances": [[1]]}', "application/octet-stream", images=True, max_bytes=9)
    assert read.rows == [[1]]


def test_columns_become_instances() -> None:
    rows = [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    assert instances({"inputs": {"a": [1, 2], "b": [3, 4]}}).rows == rows
    assert instances({"inputs": {"a": 1, "b": 3}}).rows == rows[:1]
    assert instances({"inputs": TEXT}, images=True).images == [b"jpeg"]
    for column in ({"b64": TEXT}, [{"b64": TEXT}], TEXT):
        assert instances({"inputs": {"image_bytes": column}}, images=True).images == [b"jpeg"]


EXPECTED = '{"image": {"b64": "<base64 of the file>"}}'


@pytest.mark.parametrize(
    ("document", "images", "says"),
    [
        ([], False, EXPECTED),
        ({}, False, EXPECTED),
        ({"image": {"b64": TEXT}}, True, EXPECTED),
        ({"instances": 5}, False, "instances: got int, expected a list"),
        ({"instances": "x"}, False, "instances: got str, expected a list"),
        ({"instances": None}, False, EXPECTED),
        ({"instances": []}, False, "got none"),
        ({"inputs": {}}, False, "got none"),
        ({"inputs": {"a": [1], "b": [1, 2]}}, False, "inputs: got columns of [1, 2] entries"),
        ({"instances": [[1]], "inputs": [[1]]}, False, "got 'instances' and 'inputs'"),
        ({"instances": [[1]], "signature_name": "other"}, False, "signature_name: got 'other'"),
        ({"instances": [[1]], "parameter": {}}, False, "got ['parameter'] beside"),
        ({"instances": [[1]], "parameters": []}, False, "parameters: got list"),
        ({"instances": [{"image": {"b64": "AA=="}}, [1]]}, False, "images and rows together"),
        ({"instances": [{"image": {"b64": "AA=="}}, [1]]}, True, f"got [1], expected an image as {EXPECTED}"),
        ({"instances": [{"image": {"b64": "A"}}]}, True, "instance 0: image: broken base64"),
        ({"instances": [{"image": {"b64": 5}}]}, False, f"got no image under ['image'], expected one as {EXPECTED}"),
        ({"instances": [{"x": 5}]}, True, f"got no image under ['x'], expected one as {EXPECTED}"),
        ({"instances": [{"x": TEXT, "y": TEXT}]}, True, "got an image under each of ['x', 'y']"),
        ({"instances": [{"x": {"b64": TEXT}, "y": {"b64": TEXT}}]}, True, "got an image under each of ['x', 'y']"),
    ],
)  # fmt: skip
def test_read_instances_rejects(document: object, images: bool, says: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        instances(document, images=images)
    assert says in str(raised.value)


def test_form_to_v1_is_rejected() -> None:
    with pytest.raises(UnsupportedMedia, match="got 'multipart/form-data', expected application/json or image"):
        read_instances(form(("image", b"1")), FORM, images=True, max_bytes=LIMIT)


def test_image_in_json_over_the_limit_is_rejected_before_it_is_decoded() -> None:
    large = base64.b64encode(bytes(LIMIT + 3)).decode()
    with pytest.raises(PayloadTooLarge, match=r"^image: 1003 bytes is over the limit of 1000$"):
        instances({"instances": [large]}, images=True)
    with pytest.raises(PayloadTooLarge, match=r"^image 1 of 2: image: 1003 bytes is over the limit of 1000$"):
        instances({"instances": [TEXT, large]}, images=True)
    exact = base64.b64encode(bytes(LIMIT)).decode()
    assert instances({"instances": [exact]}, images=True).images == [bytes(LIMIT)]


def test_read_parts_stops_at_the_limit() -> None:
    with pytest.raises(PayloadTooLarge, match="more than the limit of 2 parts"):
        read_parts(form(("image", b"1"), ("image", b"2"), ("image", b"3")), FORM, max_parts=2)


def test_read_parts_rejects_a_boundary_of_absurd_length() -> None:
    with pytest.raises(InvalidRequest, match="multipart/form-data"):
        read_parts(b"x", f"multipart/form-data; boundary={'y' * 300}", max_parts=2)


@pytest.mark.parametrize("body", [b"[[],[]" + b",[]" * 200_000 + b"]", b"[" + b"1," * 2**20 + b"1]", b"[" * 200_000])
def test_read_items_rejects_json_that_would_take_seconds(body: bytes) -> None:
    with pytest.raises(PayloadTooLarge, match="values is over the limit of 1048576"):
        items(body, JSON)


def test_boundary_that_is_everywhere_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match="Unexpected bytes after boundary"):
        read_parts(form(("image", b"\r\n--XX-x" * 2_000_000)), FORM, max_parts=3)


def test_deflate_is_decompressed() -> None:
    assert b"".join(decompress(zlib.compress(b"some"), "deflate", max_bytes=2**20)) == b"some"
    with pytest.raises(InvalidRequest, match=r"broken deflate: .*incorrect header"):
        b"".join(decompress(gzip.compress(b"some"), "deflate", max_bytes=2**20))
    with pytest.raises(PayloadTooLarge, match="decompressed it is over the limit of 9 bytes"):
        b"".join(decompress(zlib.compress(bytes(10)), "deflate", max_bytes=9))


@pytest.mark.parametrize("parts", [[b""], [b"x" * 100_000], [b"one", b"", b"two"], [bytes(2**20)]])
def test_gzip_of_several_members_is_decompressed(parts: list[bytes]) -> None:
    packed = b"".join(gzip.compress(part) for part in parts)
    assert b"".join(decompress(packed, max_bytes=2**20)) == gzip.decompress(packed)


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # in the names of tests no time may stand


@pytest.mark.parametrize(
    ("packed", "error", "says"),
    [
        (_gzip(bytes(2**20 + 1)), PayloadTooLarge, "decompressed it is over the limit of 1048576 bytes"),
        (_gzip(bytes(2**19)) * 3, PayloadTooLarge, "decompressed it is over the limit of 1048576 bytes"),
        (_gzip(b"") * 1001, PayloadTooLarge, "gzip of more than the limit of 1000 members"),
        (_gzip(b"some")[:-9], InvalidRequest, "broken gzip: 15 bytes end before its end"),
        (_gzip(b"some") + b"more", InvalidRequest, "broken gzip: .*incorrect header"),
        (b"some", InvalidRequest, "broken gzip: .*incorrect header"),
        (_gzip(b"some")[:-8] + bytes(8), InvalidRequest, "broken gzip: .*incorrect data check"),
        (b"", InvalidRequest, "broken gzip: 0 bytes end before its end"),
    ],
)
def test_decompress_rejects_broken_and_large_bodies(packed: bytes, error: type[ServingError], says: str) -> None:
    with pytest.raises(error, match=says):
        b"".join(decompress(packed, max_bytes=2**20))
