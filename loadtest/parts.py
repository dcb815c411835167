"""The processes of a running stack: memory and open files of each part."""

import psutil

from loadtest.errors import LoadTestError


def find_parent(port: int) -> psutil.Process:
    """The parent of the process that listens on this port.

    Raises:
        LoadTestError: no process of this user does.
    """
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            parent = psutil.Process(connection.pid).parent() if connection.pid else None
            if parent is not None:
                return parent
    raise LoadTestError(f"no process of yours listens on port {port}; next: --pid <of make serve>")


def memory_kib(parent: psutil.Process) -> dict[str, int]:
    """Resident KiB of each part; Triton's own children, one for each model instance, apart."""
    parts: dict[str, int] = {}
    for process in parent.children(recursive=True):
        try:
            command, resident = process.cmdline(), process.memory_info().rss // 1024
        except psutil.Error:  # it has just ended
            continue
        if "transformer" in command:
            part = "transformer"
        elif "synchroniser" in command:
            part = "synchroniser"
        elif process.name() == "tritonserver":
            part = "tritonserver"
        elif process.name() == "triton_python_backend_stub":
            part = "model instances"
        else:
            continue
        parts[part] = parts.get(part, 0) + resident
    return parts


def count_files(parent: psutil.Process) -> int:
    """Open files of all parts."""
    count = 0
    for process in parent.children(recursive=True):
        try:
            count += process.num_fds()
        except psutil.Error:  # it has just ended
            continue
    return count
