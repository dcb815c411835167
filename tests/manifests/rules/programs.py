"""Arguments, settings and probes, as the programs in the containers read them."""

import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from tests.manifests import programs
from tests.manifests.environment import environment_of, unknown_names
from tests.manifests.pod import MODE, STANDARD, components_of, containers_of, grace_s_of, mode_of, pod_of, pods_of
from tests.manifests.programs import SYNCHRONISER, TRANSFORMER, TRITON
from tests.manifests.rendering import Render, title
from transformer import cli as arguments

_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_START_S = 300


def arguments_are_valid(render: Render) -> Iterator[str]:
    """The parsers of the transformer and the predictor decide; Triton's arguments are tested in test_triton.py."""
    for where, container, variables in _containers(render):
        program = programs.program_of(container)
        if program and (error := programs.argument_error(program, programs.argv_of(container, variables))):
            yield f"{where}: {error.splitlines()[-1]}"


def variables_in_arguments_are_defined(render: Render) -> Iterator[str]:
    """The kubelet leaves an undefined `$(NAME)` as it is."""
    for where, container, variables in _containers(render):
        values = [each.get("value", "") for each in container.get("env", [])]
        for text in (*container.get("command", []), *container.get("args", []), *values):
            yield from (f"{where}: $({name}) is not defined" for name in unknown_names(str(text), variables))


def shell_scripts_are_well_formed(render: Render) -> Iterator[str]:
    """The arguments of `bash -c` and `sh -c`."""
    for where, container, _ in _containers(render):
        hooks = container.get("lifecycle", {}).values()
        handlers = [*(container.get(probe, {}) for probe in _PROBES), *hooks]
        commands = [[*container.get("command", []), *container.get("args", [])]]
        commands += [each["exec"]["command"] for each in handlers if "exec" in each]
        for command in commands:
            if command[1:2] == ["-c"] and command[0].rpartition("/")[2] in {"bash", "sh"}:
                stderr = subprocess.run(
                    [command[0], "-n", "-c", command[2]], capture_output=True, text=True, timeout=10, check=False
                ).stderr
                if stderr:
                    yield f"{where}: {stderr.strip()}"


def settings_exist_and_are_valid(render: Render) -> Iterator[str]:
    """pydantic-settings ignores a misspelt name silently."""
    for where, _, variables in _containers(render):
        yield from (f"{where}: {fault}" for fault in programs.setting_faults(variables))
    for each in render.of_kind("ConfigMap"):
        yield from (f"{title(each)}: {fault}" for fault in programs.setting_faults(each.get("data", {})))


def files_of_settings_are_mounted(render: Render) -> Iterator[str]:
    """Without its file of API keys the transformer exits with status 2."""
    for where, container, variables in _containers(render):
        file = variables.get("TRANSFORMER_API_KEYS_FILE", "")
        mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        if programs.program_of(container) == TRANSFORMER and file and file.rpartition("/")[0] not in mounts:
            yield f"{where}: TRANSFORMER_API_KEYS_FILE is {file}, expected it in one of {mounts}"


def probes_request_what_is_served(render: Render) -> Iterator[str]:
    """The path is a route, and the port is open to the kubelet."""
    for where, container, variables in _containers(render):
        if programs.program_of(container) is None or _has_wrong_arguments(container, variables):
            continue
        listeners = {each.port: each for each in programs.listeners_of(container, variables)}
        for probe in _PROBES:
            handler = container.get(probe, {})
            action = handler.get("httpGet") or handler.get("tcpSocket") or handler.get("grpc")
            # KServe's default probe uses the transformer's port on the first container.
            if not action or (where.startswith("kserve-container") and "httpGet" not in handler):
                continue
            port = _port(action["port"], container)
            listener, path = listeners.get(port), action.get("path")
            if listener is None or not listener.outside:
                yield f"{where}: its {probe} uses port {action['port']}, which is not open to the kubelet"
            elif path and listener.app and not programs.has_route(listener.app, path):
                yield f"{where}: its {probe} requests {path}, expected a route of the program"


def hanging_programs_are_restarted(render: Render) -> Iterator[str]:
    """In Standard mode each program has a livenessProbe; Knative allows probes only for the container with the port."""
    for pod in pods_of(render):
        if pod["metadata"].get("annotations", {}).get(MODE) != STANDARD:
            continue
        for container in containers_of(pod):
            if programs.program_of(container) and "livenessProbe" not in container:
                yield f"{container['name']} in {title(pod)}: no livenessProbe"


def slow_starts_are_not_killed(render: Render) -> Iterator[str]:
    """No livenessProbe runs before the program has responded once, however busy its node is.

    Seen on a cluster: on a node with many pods a start took 70 s, and the kubelet killed it after 50 s for its probe.
    """
    for pod in pods_of(render):
        for container in containers_of(pod):
            if "livenessProbe" not in container:
                continue
            probe = container.get("startupProbe", {})
            patience_s = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3) if probe else 0
            if patience_s < _START_S:
                where = f"{container['name']} in {title(pod)}"
                yield f"{where}: its startupProbe waits {patience_s} s, expected {_START_S} s or more"


def ports_are_listened_on(render: Render) -> Iterator[str]:
    """The program listens on each declared port, at the pod's address."""
    for where, container, variables in _containers(render):
        if programs.program_of(container) is None or _has_wrong_arguments(container, variables):
            continue
        open_ports = {each.port for each in programs.listeners_of(container, variables) if each.outside}
        for port in container.get("ports", []):
            if port["containerPort"] not in open_ports:
                yield f"{where}: declares {port['containerPort']}, listens on {sorted(open_ports)}"


def kserve_finds_both_protocols(render: Render) -> Iterator[str]:
    """In Standard mode the first port is port 80 of KServe's Service; its HTTPRoute finds gRPC by the port's name."""
    for service in render.of_kind("InferenceService"):
        for name, component in components_of(service) if mode_of(service) == STANDARD else ():
            pod = pod_of(service, name, component)
            for container in containers_of(pod):
                ports = container.get("ports", [])
                argv = programs.argv_of(container, environment_of(container, pod, render))
                if (
                    programs.program_of(container) != TRANSFORMER
                    or programs.argument_error(TRANSFORMER, argv)
                    or not ports
                ):
                    continue
                parsed, where = arguments.parse(argv), f"{container['name']} in {title(service)}"
                if ports[0]["containerPort"] != parsed.http_port:
                    yield f"{where}: first port {ports[0]}, expected {parsed.http_port}, which is REST"
                for port in ports:
                    if (port["containerPort"] == parsed.grpc_port) != _is_grpc(port.get("name", "")):
                        yield f"{where}: port {port}, expected a name with grpc for {parsed.grpc_port} and no other"


def containers_find_each_other(render: Render) -> Iterator[str]:
    """The transformer has the addresses of Triton and the synchroniser; these two share the mirror and the secret."""
    for pod in pods_of(render):
        found = {
            programs.program_of(each): (each, environment_of(each, pod, render))
            for each in reversed(containers_of(pod))
        }
        if TRITON in found and SYNCHRONISER in found:
            yield from (f"{title(pod)}: {fault}" for fault in _sync_faults(found[TRITON], found[SYNCHRONISER]))
        if TRITON in found and TRANSFORMER in found:
            sync = found.get(SYNCHRONISER)
            yield from (f"{title(pod)}: {fault}" for fault in _address_faults(found[TRITON], found[TRANSFORMER], sync))
        elif TRANSFORMER in found:
            host = arguments.parse(programs.argv_of(*found[TRANSFORMER])).predictor_host
            url = urlsplit(found[TRANSFORMER][1].get("TRANSFORMER_SYNC_URL", ""))
            for address, program in ((host, TRITON), (url.netloc, SYNCHRONISER)):
                if address not in (hosts := _services_of(program, render)):
                    yield f"{title(pod)}: the transformer has {address or 'nothing'}, expected the {program}, {hosts}"


def secrets_of_a_pod_agree(render: Render) -> Iterator[str]:
    """Triton's secret comes from the same key in all containers."""
    for pod in pods_of(render):
        keys = {
            (source["name"], source["key"])
            for container in containers_of(pod)
            for variable in container.get("env", [])
            if variable["name"] == "PREDICTOR_SECRET" and (source := variable.get("valueFrom", {}).get("secretKeyRef"))
        }
        if len(keys) > 1:
            yield f"{title(pod)}: {sorted(keys)}"


def requests_end_before_the_pod_does(render: Render) -> Iterator[str]:
    """The transformer times out before the gateway, and finishes before the pod is killed."""
    for service in render.of_kind("InferenceService"):
        for name, component in components_of(service):
            pod = pod_of(service, name, component)
            for container in containers_of(pod):
                if programs.program_of(container) != TRANSFORMER:
                    continue
                settings = programs.transformer_settings(environment_of(container, pod, render))
                if settings is None:
                    continue
                where = f"{container['name']} in {title(service)}"
                if (timeout := component.get("timeout", 300)) <= settings.request_timeout_s:
                    yield f"{where}: times out after {settings.request_timeout_s} s, the gateway after {timeout} s"
                stops = programs.stop_faults(containers_of(pod), grace_s_of(service, component), settings)
                yield from (f"{where}: {fault}" for fault in stops)


def _sync_faults(triton: Any, synchroniser: Any) -> Iterator[str]:
    container, variables = triton
    flags, own = programs.flags_of(programs.argv_of(container, variables)), synchroniser[1]
    mirror = own.get("PREDICTOR_MIRROR", "")
    expected = [f"{mirror}/models", f"{mirror}/trial"]
    if flags.get("--model-repository") != expected:
        yield f"Triton reads {flags.get('--model-repository')}, the synchroniser writes {expected}"
    if flags.get("--grpc-port", ["8001"])[-1] != own.get("PREDICTOR_GRPC_PORT", "8001"):
        yield f"Triton's gRPC port is {flags['--grpc-port']}, the synchroniser's {own.get('PREDICTOR_GRPC_PORT')}"
    cpus = container.get("resources", {}).get("limits", {}).get("cpu")
    if own.get("PREDICTOR_CPUS") != str(cpus):
        yield f"PREDICTOR_CPUS is {own.get('PREDICTOR_CPUS')}, Triton's limit {cpus}"
    for flag in ("--http-restricted-api", "--grpc-restricted-protocol"):
        if not any(":nereid=" in value for value in flags.get(flag, [])) or not own.get("PREDICTOR_SECRET"):
            yield f"{flag}: expected a secret that the synchroniser has too"


def _address_faults(triton: Any, transformer: Any, synchroniser: Any) -> Iterator[str]:
    flags = programs.flags_of(programs.argv_of(*triton))
    host = arguments.parse(programs.argv_of(*transformer)).predictor_host
    port = flags.get("--grpc-port", ["8001"])[-1]
    if host not in {f"127.0.0.1:{port}", f"localhost:{port}"}:
        yield f"the transformer connects to {host}, Triton's gRPC is on port {port}"
    if synchroniser:
        url = urlsplit(transformer[1].get("TRANSFORMER_SYNC_URL", ""))
        expected = synchroniser[1].get("PREDICTOR_SYNC_PORT", "8003")
        if url.hostname not in {"127.0.0.1", "localhost"} or str(url.port) != expected:
            yield f"the transformer connects to {url.geturl()!r}, the synchroniser is on port {expected}"


def _services_of(program: str, render: Render) -> list[str]:
    """`host:port` of each Service in front of a program's ports, open to other pods; its short name too."""
    open_ports = {
        each.port
        for _, container, variables in _containers(render)
        if programs.program_of(container) == program
        for each in programs.listeners_of(container, variables)
        if each.outside
    }
    return [
        f"{host}:{port['port']}"
        for each in render.of_kind("Service")
        for port in each["spec"]["ports"]
        if port.get("targetPort", port["port"]) in open_ports
        for host in (f"{each['metadata']['name']}.{each['metadata']['namespace']}.svc", each["metadata"]["name"])
    ]


def _has_wrong_arguments(container: Any, variables: dict[str, str]) -> bool:
    program = programs.program_of(container)
    return bool(program and programs.argument_error(program, programs.argv_of(container, variables)))


def _is_grpc(name: str) -> bool:
    return "grpc" in name or "h2c" in name


def _port(given: int | str, container: Any) -> int:
    named = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
    return given if isinstance(given, int) else named.get(given, 0)


def _containers(render: Render) -> Iterator[tuple[str, Any, dict[str, str]]]:
    for pod in pods_of(render):
        for container in containers_of(pod):
            yield f"{container['name']} in {title(pod)}", container, environment_of(container, pod, render)


RULES = (
    arguments_are_valid,
    variables_in_arguments_are_defined,
    shell_scripts_are_well_formed,
    settings_exist_and_are_valid,
    files_of_settings_are_mounted,
    probes_request_what_is_served,
    hanging_programs_are_restarted,
    slow_starts_are_not_killed,
    ports_are_listened_on,
    kserve_finds_both_protocols,
    containers_find_each_other,
    secrets_of_a_pod_agree,
    requests_end_before_the_pod_does,
)
