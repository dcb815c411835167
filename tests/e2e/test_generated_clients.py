"""Clients in Python and TypeScript, generated from /openapi.json as docs/clients.md says, beside the running stack.

`make e2e-clients` installs the generators, or says what is missing.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.stack import ROOT, Stack
from tests.support.transformer import make_key, start_transformer

ENVIRONMENT = ROOT / ".venv-clients"
BIN, NODE = ENVIRONMENT / "bin", ENVIRONMENT / "node_modules"
SECTION = (ROOT / "docs/clients.md").read_text().partition("## Generated clients")[2].partition("\n## ")[0]
COMPILER = ["--strict", "--target", "es2022", "--module", "nodenext", "--moduleDetection", "force"]

pytestmark = pytest.mark.skipif(not (NODE.exists() and BIN.exists()), reason="needs .venv-clients: make e2e-clients")


def blocks(language: str) -> list[str]:
    """Blocks of the section."""
    return re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)


def run(*command: str | Path, folder: Path) -> str:
    """What it prints."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def on_port(text: str, stack: Stack) -> str:
    return text.replace("localhost:8080", f"127.0.0.1:{stack.http_port}").replace(
        "loadtest/pictures", str(ROOT / "loadtest/pictures")
    )


def generate_python(url: str, folder: Path) -> Path:
    """A package of the client, and what is needed to import it from beside it."""
    command: list[str | Path] = [BIN / "openapi-python-client", "generate", "--url", url, "--meta", "none"]
    command += ["--output-path", folder / "nereid_client"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    output = done.stdout + done.stderr
    # It sends no body whose media type is a range, says so, and takes the other ones of the operation.
    assert set(re.findall(r"WARNING parsing (.*) within", output)) == {
        "POST /predict/{model}", "POST /predict/{model}/versions/{version}", "POST /v1/models/{model}:predict",
    }  # fmt: skip
    assert len(re.findall(r"^Unsupported content type image/\*", output, re.MULTILINE)) == 3
    assert "Unable to process" not in output
    return folder


@pytest.fixture(scope="module")
def python(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a generated client."""
    return generate_python(f"http://127.0.0.1:{stack.http_port}/openapi.json", tmp_path_factory.mktemp("python"))


@pytest.fixture(scope="module")
def typescript(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of generated types, where modules are found."""
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(NODE)
    (folder / "package.json").write_text('{"type": "module"}')
    url = f"http://127.0.0.1:{stack.http_port}/openapi.json"
    run(NODE / ".bin" / "openapi-typescript", url, "--output", "schema.d.ts", folder=folder)
    return folder


def test_python_client_of_the_page_infers(stack: Stack, python: Path) -> None:
    (program,) = blocks("python")
    assert run(BIN / "python", "-c", on_port(program, stack), folder=python) == blocks("text")[0]


RESULTS = """
import base64, json, sys
from nereid_client import Client
from nereid_client.api.v1 import v1_predict
from nereid_client.api.v2 import v2_model_infer, v2_model_metadata
from nereid_client.models import InferRequest, JsonImage, V1Request
client = Client(sys.argv[1])
def one(model, name, **more):
    image = JsonImage.from_dict({"b64": base64.b64encode(open(f"{sys.argv[2]}/{name}", "rb").read()).decode()})
    response = v1_predict.sync(model, client=client, body=V1Request(instances=[image]), **more)
    return response.predictions[0] if hasattr(response, "predictions") else response
results = {
    "digit-finder": one("digit-finder", "digits.jpg", then="digits"),
    "digit-outlines": one("digit-outlines", "digits.jpg"),
    "digit-strokes": one("digit-strokes", "digits.jpg"),
    "tilted-digits": one("tilted-digits", "tilted-digits.jpg"),
    "digits": one("digits", "seven.png", top_k=2),
    "iris": v1_predict.sync("iris", client=client, body=V1Request(instances=[[6.3, 3.3, 6.0, 2.5]])).predictions[0],
    "classes": one("digit-finder", "digits.jpg", classes=["2", "7"]),
    "nowhere": one("nowhere", "digits.jpg"),
    "metadata": v2_model_metadata.sync("iris", client=client),
    "v2": v2_model_infer.sync("iris", client=client, body=InferRequest.from_dict({"inputs": [
        {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [6.3, 3.3, 6.0, 2.5]}]})),
}
print(json.dumps({name: [type(each).__name__, each.to_dict()] for name, each in results.items()}))
"""


def test_python_client_has_the_type_and_the_members_of_each_result(stack: Stack, python: Path) -> None:
    url = f"http://127.0.0.1:{stack.http_port}"
    found = json.loads(run(BIN / "python", "-c", RESULTS, url, str(ROOT / "loadtest/pictures"), folder=python))
    assert {name: kind for name, (kind, _) in found.items()} == {
        "digit-finder": "Detections", "digit-outlines": "Segments", "digit-strokes": "Poses",
        "tilted-digits": "OrientedBoxes", "digits": "Classification", "iris": "ClassifiedRow", "classes": "Detections",
        "nowhere": "Error", "metadata": "ModelMetadata", "v2": "InferResponse",
    }  # fmt: skip
    for model, name in (
        ("digit-outlines", "digits.jpg"),
        ("tilted-digits", "tilted-digits.jpg"),
        ("digits", "seven.png"),
    ):
        image = (ROOT / "loadtest/pictures" / name).read_bytes()
        parameters = {"top_k": 2} if model == "digits" else {}
        expected = stack.http.post(f"/predict/{model}", files={"image": image}, params=parameters).json()
        assert stable(found[model][1]) == stable(expected)
    assert {each["class"] for each in found["classes"][1]["predictions"]} == {"2", "7"}
    assert found["digit-finder"][1]["predictions"][0]["classification"]["top"] == "2"
    assert found["nowhere"][1]["code"] == "model_not_found"


def stable(response: dict[str, object]) -> str:
    """What does not change from request to request."""
    text = json.dumps({name: response.get(name) for name in ("model", "image", "predictions")}, sort_keys=True)
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "", text)


def test_python_client_shows_a_key(stack: Stack, tmp_path: Path) -> None:
    key = make_key("generated", tmp_path / "keys.txt")
    variables = {"TRANSFORMER_API_KEYS_FILE": str(tmp_path / "keys.txt")}
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", tmp_path / "log", variables=variables) as guarded:
        document = guarded.http.get("/openapi.json", headers={"X-API-Key": key}).json()
        (tmp_path / "openapi.json").write_text(json.dumps(document))
        command: list[str | Path] = [
            BIN / "openapi-python-client",
            "generate",
            "--path",
            "openapi.json",
            "--meta",
            "none",
        ]
        run(*command, "--output-path", tmp_path / "nereid_client", folder=tmp_path)
        program = (
            "import sys; from nereid_client import AuthenticatedClient\n"
            "from nereid_client.api.v2 import v2_model_metadata\n"
            "print(v2_model_metadata.sync('iris', client=AuthenticatedClient(sys.argv[1], token=sys.argv[2])).name)"
        )
        url = f"http://127.0.0.1:{guarded.http_port}"
        assert "iris" in run(BIN / "python", "-c", program, url, key, folder=tmp_path)
        assert document["security"] == [{"bearerKey": []}, {"headerKey": []}]
        # What the document says of keys is so: a route without security needs none, any other one does.
        for path, operations in document["paths"].items():
            if "get" in operations and "{" not in path:
                needs_key = operations["get"].get("security") != []
                assert (guarded.http.get(path).status_code == 401) == needs_key, path


def test_typescript_of_the_page_infers(stack: Stack, typescript: Path) -> None:
    (program,) = blocks("ts")
    (typescript / "page.ts").write_text(on_port(program, stack).replace('"./schema"', '"./schema.js"'))
    run(NODE / ".bin" / "tsc", *COMPILER, "page.ts", folder=typescript)
    assert run("node", "page.js", folder=typescript) == blocks("text")[1]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("each.box.x1", "each.box.left"),
        ("confidence: 0.9", 'confidence: "high"'),
        ("image: { b64: image }", "image: { b64: 1 }"),
        ('"detect"', '"detection"'),
        ("error.code", "error.reason"),
    ],
)
def test_typescript_finds_what_is_wrong(typescript: Path, before: str, after: str) -> None:
    (program,) = blocks("ts")
    assert before in program
    (typescript / "wrong.ts").write_text(program.replace(before, after).replace('"./schema"', '"./schema.js"'))
    command: list[str | Path] = [NODE / ".bin" / "tsc", *COMPILER, "--noEmit", "wrong.ts"]
    done = subprocess.run(command, cwd=typescript, capture_output=True, text=True, check=False)
    assert "error TS" in done.stdout
