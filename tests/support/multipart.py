"""Bodies of multipart/form-data."""

FORM = "multipart/form-data; boundary=XX"


def form(*parts: tuple[str, bytes]) -> bytes:
    lines = [
        b'--XX\r\nContent-Disposition: form-data; name="%s"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n%s\r\n" % (name.encode(), data)
        for name, data in parts
    ]
    return b"".join(lines) + b"--XX--\r\n"
