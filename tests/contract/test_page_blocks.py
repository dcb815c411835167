"""Every command and every block of output of the pages is run by a test, or says here why not.

A block is a page, a heading and its number below it. `RUN` names the test that types it; `NOT_RUN` the reason why none
does, and those are still read by bash, and by make: that the syntax is right, and each target and variable exists.
"""

import os
import re
import subprocess
import sys

import pytest

from nereid.commands import COMMANDS as NEREID
from tests.manifests.rendering import needs_kubectl
from tests.support.kubectl_arguments import read_arguments
from tests.support.pages import PAGES, ROOT, Block, all_blocks
from tests.support.terminal import read_commands

TWO_STEPS = "tests/integration/test_two_steps.py"
TRACKING = "tests/track/test_track.py"
GENERATED_CLIENTS = "tests/e2e/test_generated_clients.py"
HOUR = "tests/integration/test_first_hour.py"
COMMANDS = "tests/integration/test_page_commands.py"
VISION = "tests/integration/test_vision.py"
CLIENTS = "tests/integration/test_clients.py"
SUPERVISION = "tests/unit/test_supervision.py"
DAY_2 = "tests/cluster/test_day2.py"
KNATIVE = "tests/cluster/test_knative.py"
SIGNATURES = "tests/integration/test_signatures.py"
OVERLAYS = "tests/manifests/test_page_overlays.py"

CVAT = "needs a server of CVAT: tests/labelling/test_cvat.py runs the same commands beside a stand-in for it"
LABEL_STUDIO = "needs its ports free: tests/labelling/test_label_studio.py runs the same program on another"
FIFTYONE = "tests/labelling/test_fiftyone.py"

DRAWING = "a drawing, a layout or a formula"
GENERATED = "written by make pages, which tests/contract/test_pages.py compares"
INSTALLS = "installs, downloads or removes what the tests run with"
TORCH = "needs torch: tests/export runs the same commands with other models"
TENSORFLOW = "needs TensorFlow: tests/export/test_export_keras.py runs the same exports"
LONG = "takes minutes to hours; its program is run by tests/tools with less"
REGISTRY = "needs a registry to push to: tests/unit/test_images_command.py has the commands that are run"
PIPELINES = "needs a registry, a bucket and a cluster: tests/contract/test_pipelines.py has the commands"
STANDALONE = "needs podman: tests/e2e/test_standalone.py runs the image like that"
AWS = "needs an account of AWS"
WITHOUT_SHM = "was printed by Triton where there is no /dev/shm, in a namespace of its own"
CLUSTER = "needs a cluster with more than make cluster has, or makes one"
ROLLOUTS = "needs Argo Rollouts in a cluster"
BY_HAND = "was typed on the cluster; the tests there take the same steps by their own calls"
OUTSIDE = "needs the internet"
DOCKER = "needs docker: tests/e2e/test_compose.py runs the same commands with podman-compose"
OTHERS = "is of another program, which is not here"

# By page, then heading: for each block below it which test runs it, or why none can.
BLOCKS: dict[str, dict[str, list[str]]] = {
    "README.md": {
        "Nereid": [DRAWING],
        "Try it": ["tests/tools/test_demo.py"],
        "Three requests": [CLIENTS],
    },
    "CONTRIBUTING.md": {
        "Contributing": [INSTALLS],
        "Run one test": ["it would run tests within a test; that the files exist is looked at"],
        "Targets": [LONG],
    },
    "cluster/README.md": {"A real cluster on one machine": [CLUSTER], "What it is made of": [DRAWING]},
    "docs/architecture.md": {"Components": [DRAWING], "Errors": [GENERATED], "A model's folder": [DRAWING]},
    "docs/batches.md": {"Batches": ["tests/integration/test_page_commands.py"], "Output": [DRAWING]},
    "docs/compose.md": {
        "Compose": [DOCKER],
        "Variables": [DOCKER],
        "Your models": [DOCKER],
        "Your bucket": [DOCKER, DOCKER],
        "A GPU": [DOCKER],
        "Update": [DOCKER],
    },
    "docs/cameras.md": {
        "Cameras": [VISION],
        "Frigate": ["tests/e2e/test_frigate.py"],
        "On a cluster": [CLUSTER, CLUSTER],
        "Home Assistant": [OTHERS],
        "Viseron": [OTHERS],
    },
    "docs/labelling.md": {
        "CVAT": [INSTALLS, CVAT, CVAT],
        "Label Studio": [INSTALLS, LABEL_STUDIO],
        "FiftyOne": [INSTALLS, FIFTYONE],
    },
    "docs/clients.md": {
        "curl": [CLIENTS],
        "tritonclient.http": [CLIENTS, CLIENTS],
        "tritonclient.grpc": [CLIENTS, CLIENTS],
        "tritonclient.http.aio": [CLIENTS, CLIENTS],
        "tritonclient.grpc.aio": [CLIENTS, CLIENTS],
        "kserve.InferenceRESTClient": [CLIENTS, CLIENTS],
        "kserve.InferenceGRPCClient": [CLIENTS, CLIENTS],
        "supervision": [CLIENTS, CLIENTS],
        "Generated clients": [GENERATED_CLIENTS] * 6,
        "With an API key": [CLIENTS, CLIENTS, CLIENTS, CLIENTS, CLIENTS],
    },
    "docs/day-2.md": {
        "Day 2": [CLUSTER],
        "Restart the pods": [DAY_2, DAY_2],
        "Rotate the keys of S3": [DAY_2],
        "Rotate API keys": [DAY_2, DAY_2],
        "Rotate Triton's secret": [DAY_2, OVERLAYS],
        "Another bucket": [DAY_2, DAY_2],
        "From the versions of the bucket": [DAY_2],
        "From the mirror of a pod": [DAY_2],
        "S3 is away": [DAY_2, DAY_2],
        "A container without memory, a container that hangs": [BY_HAND, OVERLAYS],
        "Upgrade and roll back": [DAY_2, DAY_2],
        "Drain nodes": [BY_HAND],
        "At night: a version is rejected": [DAY_2, DAY_2],
        "Fifty pods": [DAY_2],
    },
    "docs/first-hour.md": {
        "What you need": [INSTALLS],
        "A model of your own": [HOUR, COMMANDS],
        "Publish it": [HOUR, HOUR, HOUR],
        "The next version, and back": [HOUR, HOUR],
        "Upgrade": [INSTALLS],
        "Uninstall": [INSTALLS],
    },
    "docs/gitops.md": {
        "A repository of your own": [DRAWING],
        "What the manifests bring": [BY_HAND],
        "Changes are commits": [OVERLAYS],
        "What it shows": [OTHERS],
        "Secrets": [AWS],
    },
    "docs/growth.md": {"Pods for a rate": [COMMANDS], "How long requests wait": [COMMANDS]},
    "docs/container-images.md": {
        "Container images": [REGISTRY],
        "All in one container": [STANDALONE],
        "After a push": [REGISTRY],
        "A site without a way out": [COMMANDS, OTHERS, OVERLAYS],
    },
    "docs/model-lifecycle.md": {"Model lifecycle": [COMMANDS, COMMANDS]},
    "docs/models.md": {"Add a model": [COMMANDS], "torch without CUDA": [OUTSIDE]},
    "docs/pipelines.md": {"Pipelines": [PIPELINES], "Try the files here": [INSTALLS]},
    "docs/production-on-eks.md": {
        "Production on EKS": [AWS],
        "1. What must be there": [AWS],
        "2. Images": [AWS],
        "3. Bucket": [AWS],
        "4. Addresses": [AWS],
        "5. Roles": [AWS, AWS, OVERLAYS],
        "6. The overlay": [AWS],
        "7. Secrets": [AWS],
        "8. Certificate and DNS": [AWS, AWS],
        "9. Publish and apply": [AWS],
    },
    "docs/ecs.md": {"ECS Fargate": [AWS], "The worker": [AWS]},
    "docs/lambda.md": {"Lambda and API Gateway": [AWS], "Why not the stack in a function": [WITHOUT_SHM]},
    "docs/queues.md": {"Queues": [AWS], "Results": [DRAWING], "In a container": [AWS]},
    "docs/releases.md": {"Take a release": [OVERLAYS]},
    "docs/sagemaker.md": {"SageMaker": [AWS, STANDALONE], "Asynchronous, serverless": [AWS]},
    "docs/signed-models.md": {
        "Signed models": [SIGNATURES, SIGNATURES, SIGNATURES],
        "The official program": [SIGNATURES],
        "Certificates": [SIGNATURES],
        "On a cluster": [
            "tests/manifests/test_components.py",
            "makes a Secret in a cluster, which the job of the text reads",
        ],
        "Rotation, revocation": [SIGNATURES, SIGNATURES],
    },
    "docs/terraform.md": {
        "Production on AWS by Terraform": [AWS],
        "Knative": [AWS],
        "The pipeline": [AWS],
        "Teardown": [AWS],
    },
    "docs/sizing.md": {
        "Sizing": [COMMANDS],
        "Mirror": [DRAWING],
        "Pods for a rate": [LONG],
        "Requests to S3": [DRAWING],
        "Fifty pods": [OVERLAYS],
    },
    "docs/tables.md": {"The rows of the verification": [COMMANDS]},
    "docs/tasks.md": {
        "Classify": [TORCH, COMMANDS, DRAWING],
        "Any ONNX": [COMMANDS],
        "Keras and TensorFlow": [TENSORFLOW],
        "Pose": [SUPERVISION],
        "Oriented boxes": [SUPERVISION],
        "Two steps": [TWO_STEPS, TWO_STEPS, TWO_STEPS],
    },
    "docs/operations.md": {"Errors to Sentry": [OUTSIDE]},
    "docs/video.md": {
        "A file": [TRACKING, TRACKING],
        "A camera": [TRACKING, TRACKING],
        "Lines of JSON": [TRACKING, TRACKING, OTHERS],
        "How many cameras": [LONG],
    },
    "loadtest/README.md": {"Use": [LONG]},
    "loadtest/compare/README.md": {"Side by side": [LONG]},
    "manifests/README.md": {
        "On KServe": [DRAWING],
        "Before you begin": [BY_HAND],
        "From an empty cluster to a detection": [KNATIVE],
        "An overlay of your own": ["tests/manifests/test_foreign.py", "tests/manifests/test_components.py"],
        "How a request enters in Standard mode": [BY_HAND],
        "With Helm": ["tests/manifests/test_chart.py"],
        "A canary": [KNATIVE],
        "Without KServe": [BY_HAND],
        "Blue and green": [BY_HAND, BY_HAND, BY_HAND],
        "By Argo Rollouts": [ROLLOUTS],
        "Zero pods without Knative": [BY_HAND],
        "Security": [OUTSIDE],
    },
    "manifests/kind/README.md": {"A cluster of your own": [CLUSTER]},
    "manifests/components/cpu-triton/README.md": {
        "Triton for CPUs: 0.4 GB in place of 15": ["tests/manifests/test_components.py"],
    },
    "manifests/logging/README.md": {"Logs of a cluster": [OUTSIDE], "CloudWatch": [AWS]},
    "manifests/monitoring/README.md": {
        "Monitoring": [BY_HAND],
        "Once for a cluster": ["tests/contract/test_runbooks.py"],
        "In an overlay of your own": ["tests/contract/test_runbooks.py", "tests/contract/test_runbooks.py"],
    },
}
SEEN = list(all_blocks())
SHELL = re.compile(
    r"^(?:\$ )?(?:make|nereid|curl|kubectl|git|helm|aws|\.venv/bin/|for|export|apt-get|openssl|awk|sed|READY=|NOW=)",
    re.M,
)


def verdict_of(block: Block) -> str:
    """Which test runs a block, or why none does."""
    return BLOCKS[block.page][block.heading][block.number]


def test_every_block_is_listed_once() -> None:
    seen: dict[str, dict[str, int]] = {}
    for block in SEEN:
        headings = seen.setdefault(block.page, {})
        headings[block.heading] = headings.get(block.heading, 0) + 1
    listed = {page: {heading: len(each) for heading, each in headings.items()} for page, headings in BLOCKS.items()}
    assert listed == seen


def test_tests_that_run_blocks_read_the_pages() -> None:
    files = {each for headings in BLOCKS.values() for verdicts in headings.values() for each in verdicts}
    for path in (ROOT / each for each in files if each.startswith("tests/")):
        text = path.read_text()
        assert "tests.support.pages" in text or ".md" in text or "knative.commands_of" in text, path


def is_shell(block: Block) -> bool:
    """Whether a block is commands."""
    return block.language in {"", "sh", "bash"} and bool(SHELL.match(block.text)) and "\n  - " not in block.text


def script_of(block: Block) -> str:
    """The commands of a block, without what they print."""
    if not block.text.startswith("$ "):
        return block.text
    return "\n".join(command.text for command in read_commands(block.text))


@pytest.mark.parametrize(
    "block", [each for each in SEEN if is_shell(each)], ids=lambda each: f"{each[0]} {each[1]} {each[2]}"
)
def test_bash_reads_every_block_of_commands(block: Block) -> None:
    # `<the folder>` is for the reader to fill in.
    script = re.sub(r"<[a-z][a-z ]*>", "example", script_of(block))
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def make_lines() -> list[str]:
    """One line of `make` for each target and set of variables, without its comment and what follows in a pipe."""
    lines = [line for block in SEEN if is_shell(block) for line in script_of(block).splitlines()]
    found = (re.match(r"(?:NEREID_API_KEY=\S+ )?(make [^#|&;]*)", line.strip()) for line in lines)
    texts = (re.sub(r"<[a-z][a-z ]*>", "example", each[1].strip()) for each in found if each)
    return sorted({re.sub(r"=(?:\"[^\"]*\"|\S*)", "", text): text for text in texts}.values())


@pytest.mark.parametrize("line", make_lines())
def test_make_takes_every_command_of_the_pages(line: str) -> None:
    own = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL"}}
    variables = {"MODEL": "digits", "REPOSITORY": "s3://models/demo", "URL": "http://localhost:8080", "NAME": "alice"}
    script = f'make() {{ command make --dry-run --no-print-directory "$@"; }}; {line}'
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=own | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def nereid_options() -> dict[str, set[str]]:
    """The commands of `nereid` that the pages name, and the options that they give them."""
    found: dict[str, set[str]] = {}
    lines = [line for block in SEEN for line in block.text.splitlines()]
    inline = [each for page in PAGES for each in re.findall(r"`([^`]+)`", page.read_text())]
    for each in [*lines, *inline]:
        if match := re.match(r"(?:\$ )?nereid ([a-z0-9-]+)(.*)", each.replace("\n", " ")):
            found.setdefault(match[1], set()).update(re.findall(r"(?<= )--[a-z0-9-]+|(?<=\[)--[a-z0-9-]+", match[2]))
    return found


@pytest.mark.parametrize(("command", "options"), sorted(nereid_options().items()))
def test_nereid_takes_every_command_of_the_pages(command: str, options: set[str]) -> None:
    assert command in {*NEREID, "--help"}
    if options:
        done = subprocess.run(
            [sys.executable, "-m", "nereid", command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert options <= set(re.findall(r"--[a-z0-9-]+", done.stdout))


def kubectl_commands() -> list[str]:
    """Commands of kubectl in a line of a block or in the text, but for those that a shell has to complete."""
    lines = [line for block in SEEN if is_shell(block) for line in script_of(block).splitlines()]
    inline = [
        each
        for page in PAGES
        if page.name != "runbooks.md"
        for each in re.findall(r"`(kubectl [^`]+)`", page.read_text())
    ]
    found = (each.partition("  #")[0].removesuffix(" &").removesuffix(" || true").strip() for each in [*lines, *inline])
    whole = {
        each for each in found if each.startswith("kubectl ") and not re.search(r"[$|>\\]|<\(|\.\.\.|'[^']*$", each)
    }
    filled = {re.sub(r"<[a-z-]+>", "example", each) for each in whole}
    # A word or two is a name in a sentence; what reads files or a schema first has no files here.
    return sorted(
        each
        for each in filled
        if len(each.split()) > 3 and not re.search(r" (?:apply|diff|delete -k|kustomize|create|drain|cp|patch) ?", each)
    )


@needs_kubectl
@pytest.mark.parametrize("command", kubectl_commands())
def test_kubectl_takes_every_command_of_the_pages(command: str) -> None:
    assert not (problem := read_arguments(command)), problem


def test_contributing_names_tests_that_exist() -> None:
    named = re.findall(r"tests/\w+/\w+\.py", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 2
    assert all((ROOT / each).is_file() for each in named)
