"""What a client reaches that runs code in the transformer, by an image that breaks a decoder: no more than it needs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from environment.error_codes import ErrorCode
from export.examples.shipped import EXAMPLES
from tests.support.confined import REJECTED
from tests.support.error_codes import code_of
from tests.support.ports import find_free_ports
from tests.support.processes import words_of
from tests.support.stack import ROOT, Stack, start_stack, wait_until, wait_until_announced
from tests.support.transformer import DIGITS, Transformer, start_transformer
from tests.support.triton import start_triton

SHIPPED = sorted(example.name for example in EXAMPLES)

MODELS = ROOT / "model_repository"
# Variables of the shell that starts the stack: those of each part, and unrelated ones.
SYNCHRONISER_S = {"AWS_ACCESS_KEY_ID": "s3cret-id", "AWS_SECRET_ACCESS_KEY": "s3cret-key", "AWS_PROFILE": "none"}
TRANSFORMER_S = {"OTEL_EXPORTER_OTLP_HEADERS": "key=s3cret-header", "TRANSFORMER_MAX_ITEMS": "7"}
ANNOUNCER_S = {"NEREID_API_KEY": "s3cret-api-key"}
UNRELATED = {"GITHUB_TOKEN": "s3cret-token", "HOMEBREW_GITHUB_API_TOKEN": "s3cret-brew", "PATH_S3CRET": "s3cret-path"}

RESTRICTED = {
    "RepositoryIndex": service_pb2.RepositoryIndexRequest(),
    "RepositoryModelLoad": service_pb2.RepositoryModelLoadRequest(
        model_name="iris",
        parameters={
            "config": service_pb2.ModelRepositoryParameter(string_param='{"backend": "python"}'),
            "file:1/model.py": service_pb2.ModelRepositoryParameter(bytes_param=b"import os"),
        },
    ),
    "RepositoryModelUnload": service_pb2.RepositoryModelUnloadRequest(model_name="iris"),
    "SystemSharedMemoryStatus": service_pb2.SystemSharedMemoryStatusRequest(),
    "SystemSharedMemoryRegister": service_pb2.SystemSharedMemoryRegisterRequest(name="a", key="/a", byte_size=8),
    "SystemSharedMemoryUnregister": service_pb2.SystemSharedMemoryUnregisterRequest(),
    "CudaSharedMemoryStatus": service_pb2.CudaSharedMemoryStatusRequest(),
    "CudaSharedMemoryRegister": service_pb2.CudaSharedMemoryRegisterRequest(name="a", byte_size=8),
    "CudaSharedMemoryUnregister": service_pb2.CudaSharedMemoryUnregisterRequest(),
    "TraceSetting": service_pb2.TraceSettingRequest(),
    "LogSettings": service_pb2.LogSettingsRequest(),
    "ModelStatistics": service_pb2.ModelStatisticsRequest(),
}
LOADS_CODE = ("RepositoryModelLoad", "RepositoryModelUnload")
RESTRICTED_PATHS = (
    "POST /v2/repository/index",
    "POST /v2/repository/models/iris/load",
    "POST /v2/repository/models/iris/unload",
    "GET /v2/systemsharedmemory/status",
    "POST /v2/systemsharedmemory/region/a/register",
    "POST /v2/systemsharedmemory/unregister",
    "GET /v2/cudasharedmemory/status",
    "POST /v2/cudasharedmemory/region/a/register",
    "GET /v2/logging",
    "POST /v2/logging",
    "GET /v2/trace/setting",
    "POST /v2/trace/setting",
    "POST /v2/models/iris/trace/setting",
    "GET /v2/models/stats",
    "GET /v2/models/iris/stats",
    "GET /v2/models/iris/versions/1/stats",
)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that a shell with secrets has started."""
    variables = SYNCHRONISER_S | TRANSFORMER_S | ANNOUNCER_S | UNRELATED
    with start_stack(MODELS, tmp_path_factory.mktemp("shell") / "log", variables=variables) as stack:
        yield stack


def secret_of(stack: Stack) -> str:
    """The secret of Triton, from its command line."""
    (rule,) = (word for word in stack.part("tritonserver").cmdline() if word.startswith("--grpc-restricted"))
    return rule.rpartition("=")[2]


def part_of(stack: Stack, *words: str) -> psutil.Process:
    (found,) = (
        each for each in psutil.Process(stack.process.pid).children() if words_of(each)[-len(words) :] == [*words]
    )
    return found


def test_each_part_has_the_secrets_that_it_needs(shell: Stack) -> None:
    triton, transformer = shell.part("tritonserver"), shell.part("transformer")
    synchroniser, watch = part_of(shell, "predictor", "synchroniser"), part_of(shell, "-m", "stack.watch")
    secret = secret_of(shell)
    assert synchroniser.environ().items() >= (SYNCHRONISER_S | {"PREDICTOR_SECRET": secret}).items()
    assert transformer.environ().items() >= TRANSFORMER_S.items()
    others = {
        transformer: SYNCHRONISER_S | ANNOUNCER_S | UNRELATED,
        synchroniser: TRANSFORMER_S | ANNOUNCER_S | UNRELATED,
        watch: SYNCHRONISER_S | TRANSFORMER_S | ANNOUNCER_S | UNRELATED,
    }
    others |= dict.fromkeys([triton, *triton.children(recursive=True)], others[watch])  # models run in processes of it
    for process, strange in others.items():
        seen = process.environ()
        assert not seen.keys() & strange.keys(), process
        assert not set(seen.values()) & set(strange.values()), process
        assert process is synchroniser or secret not in str(seen), process
    assert secret not in str(transformer.cmdline())


def test_triton_rejects_changes_with_every_word_that_the_transformer_has(shell: Stack) -> None:
    # Whatever is in its environment and arguments is tried as the secret.
    transformer = shell.part("transformer")
    words = {"", *transformer.environ().values(), *transformer.cmdline()}
    guesses = sorted(word for word in words if re.fullmatch("[!-~]*", word))
    with grpc.insecure_channel(f"127.0.0.1:{shell.triton_grpc_port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for method, request in RESTRICTED.items():
            for metadata in [None, *([("triton-grpc-protocol-nereid", guess)] for guess in guesses)]:
                with pytest.raises(grpc.RpcError, match="protocol is restricted"):
                    getattr(stub, method)(request, metadata=metadata, timeout=30)
    with httpx.Client(base_url=f"http://127.0.0.1:{shell.triton_http_port}", trust_env=False) as client:
        for method, path in (line.split() for line in RESTRICTED_PATHS):
            for headers in [{}, *({"nereid": guess} for guess in guesses)]:
                assert client.request(method, path, json={}, headers=headers).status_code == 403, path
        # Other spellings of a path lead nowhere.
        for path in ("/v2//repository/index", "/v2/./logging", "/V2/logging", "/v2/%6cogging", "//v2/logging"):
            assert client.post(path, json={}).status_code in {400, 403, 404}, path
    assert "iris" in shell.http.get("/v2/models").json()["models"]


def test_models_are_listed_without_the_secret(shell: Stack, tmp_path: Path) -> None:
    listed = {"models": SHIPPED}
    assert shell.http.get("/v2/models").json() == shell.http.get("/v1/models").json() == listed
    triton = f"127.0.0.1:{shell.triton_grpc_port}"
    # Beside no synchroniser: that of a Triton which requires a secret that the transformer does not have.
    with start_transformer(triton, tmp_path / "alone.log") as alone:
        for path in ("/v1/models", "/v2/models"):
            assert code_of(alone.http.get(path)) is ErrorCode.MODELS_NOT_LISTED
        assert alone.http.get("/v2/models/iris").is_success
        assert "ModelsNotListed: repository: This protocol is restricted" in (tmp_path / "alone.log").read_text()
    # Beside a synchroniser that does not respond they are unknown too.
    (closed_port,) = find_free_ports(1)
    variables = {"TRANSFORMER_SYNC_URL": f"http://127.0.0.1:{closed_port}"}
    with start_transformer(triton, tmp_path / "unsure.log", variables=variables) as unsure:
        assert unsure.http.get("/v2/models").status_code == 503
    # Nothing serves without Triton, whatever the synchroniser knows.
    variables = {"TRANSFORMER_SYNC_URL": shell.sync}
    with start_transformer(f"127.0.0.1:{closed_port}", tmp_path / "away.log", variables=variables) as away:
        assert away.http.get("/v2/models").status_code == 503


def test_stack_before_a_triton_that_lists_nothing_says_so(shell: Stack, tmp_path: Path) -> None:
    variables = {"TRITON_URL": f"127.0.0.1:{shell.triton_grpc_port}"}
    with start_stack(MODELS, tmp_path / "log", variables=variables) as stack:
        wait_until_announced(stack.log)
        assert "this Triton lists its models for a secret only" in stack.log.read_text()


def test_triton_that_loads_nothing_by_request_lists_to_all(tmp_path: Path) -> None:
    """Triton of overlays/storage-uri, without a secret."""
    with (
        start_triton(MODELS, tmp_path / "triton.log") as triton,
        start_transformer(f"127.0.0.1:{triton.grpc_port}", tmp_path / "log") as transformer,
        grpc.insecure_channel(f"127.0.0.1:{triton.grpc_port}") as channel,
    ):
        assert transformer.http.get("/v2/models").json() == {"models": SHIPPED}
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for method in LOADS_CODE:
            with pytest.raises(grpc.RpcError, match="explicit model load / unload is not allowed"):
                getattr(stub, method)(RESTRICTED[method], timeout=30)
        assert transformer.http.get("/v2/models/iris/ready").is_success


def filters_of(server: Transformer) -> set[int]:
    """How many filters of system calls each thread has, beyond those that the tests run under."""

    def count(status: Path) -> int:
        return int(re.findall(r"^Seccomp_filters:\s+(\d+)", status.read_text(), re.MULTILINE)[0])

    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    return {count(task / "status") - count(Path("/proc/self/status")) for task in tasks}


def test_kernel_rejects_system_calls_of_the_transformer_that_no_request_needs(shell: Stack, tmp_path: Path) -> None:
    triton, log = f"127.0.0.1:{shell.triton_grpc_port}", tmp_path / "log"
    variables = {"TMPDIR": str(tmp_path)}
    with start_transformer(triton, log, variables=variables, module="tests.support.confined") as server:
        wait_until(lambda: '"a call that no kernel has"' in log.read_text(), log=log)
        found = json.loads(next(line for line in log.read_text().splitlines() if line.startswith("{")))
        assert found.keys() == REJECTED.keys()
        assert {name: said for name, said in found.items() if said not in {"EPERM", "ENOSYS"}} == {}
        assert server.http.post("/predict/digit-finder", files={"image": DIGITS}).is_success
        assert filters_of(server) == {2}  # one of them is about rings alone
        server.process.terminate()
        assert server.process.wait(60) == 0


def test_transformer_serves_without_a_filter(shell: Stack, tmp_path: Path) -> None:
    triton = f"127.0.0.1:{shell.triton_grpc_port}"
    with start_transformer(triton, tmp_path / "off", variables={"TRANSFORMER_SECCOMP": "off"}) as server:
        assert server.http.post("/predict/digit-finder", files={"image": DIGITS}).is_success
        assert filters_of(server) == {0}
    assert "seccomp" not in (tmp_path / "off").read_text()
    # Like in a sandbox whose kernel has no filters.
    with start_transformer(triton, tmp_path / "none", module="tests.support.unconfinable") as server:
        assert server.http.post("/predict/digit-finder", files={"image": DIGITS}).is_success
        assert filters_of(server) == {1}  # the one that plays that kernel
    assert (tmp_path / "none").read_text().count("no seccomp filter: Function not implemented; ") == 1
