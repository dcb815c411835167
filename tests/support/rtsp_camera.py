"""An RTSP camera on loopback: GStreamer's server, with Debian's Python, which alone has its bindings."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PYTHON = "/usr/bin/python3"
NEEDED = "needs GStreamer's RTSP server; next: apt-get install python3-gst-1.0 gir1.2-gst-rtsp-server-1.0 \
gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
_ELEMENTS = ("multifilesrc", "jpegdec", "x264enc", "rtph264pay")


def is_installed() -> bool:
    """Whether this machine has what it takes."""
    done = subprocess.run([PYTHON, __file__, "check"], capture_output=True, check=False)
    return done.returncode == 0


@contextmanager
def start_camera(port: int, frames: Path) -> Iterator[str]:
    """A camera that shows numbered JPEGs, `0000.jpg` and on, again and again; its URL."""
    process = subprocess.Popen([PYTHON, __file__, str(port), str(frames)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield f"rtsp://user:secret@127.0.0.1:{port}/camera"
    finally:
        process.kill()
        process.communicate()


def _serve() -> None:
    import gi  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - of Debian's Python alone

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    Gst.init(None)
    if sys.argv[1] == "check":
        sys.exit(not all(map(Gst.ElementFactory.find, _ELEMENTS)))
    server, media = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    media.set_launch(
        f'( multifilesrc location={sys.argv[2]}/%04d.jpg loop=true caps="image/jpeg,framerate=(fraction)25/1" ! jpegdec'
        " ! videoconvert ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10"
        " ! rtph264pay name=pay0 pt=96 config-interval=1 )"
    )
    media.set_shared(True)
    server.get_mount_points().add_factory("/camera", media)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    _serve()
