"""A small graph in OpenVINO's IR format."""

from pathlib import Path

_PORT = """<port id="{id}" precision="I32"{names}><dim>1</dim><dim>4</dim>{layout}</port>"""
_LAYOUT = """<rt_info><attribute name="layout" version="0" layout="[N,H]"/></rt_info>"""


def build_sum(*, layouts: bool = True) -> str:
    """`total = left + right`, INT32, one row of four; with `layouts` it marks the first dimension as the batch."""
    layout = _LAYOUT if layouts else ""

    def parameter(number: int, name: str) -> str:
        port = _PORT.format(id=0, names=f' names="{name}"', layout=layout)
        return (
            f'<layer id="{number}" name="{name}" type="Parameter" version="opset1">'
            f'<data shape="1,4" element_type="i32"/><output>{port}</output></layer>'
        )

    left, right = (_PORT.format(id=number, names="", layout="") for number in (0, 1))
    total = _PORT.format(id=2, names=' names="total"', layout=layout)
    result = _PORT.format(id=0, names="", layout="")
    return (
        '<?xml version="1.0"?><net name="sum" version="11"><layers>'
        + parameter(0, "left")
        + parameter(1, "right")
        + '<layer id="2" name="sum" type="Add" version="opset1"><data auto_broadcast="numpy"/>'
        + f"<input>{left}{right}</input><output>{total}</output></layer>"
        + f'<layer id="3" name="end" type="Result" version="opset1"><input>{result}</input></layer></layers><edges>'
        + '<edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>'
        + '<edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>'
        + '<edge from-layer="2" from-port="2" to-layer="3" to-port="0"/></edges></net>'
    )


def write_sum(version: Path, *, layouts: bool = True) -> None:
    """Write the graph into a version's folder: model.xml, and an empty model.bin, as it has no weights."""
    version.mkdir(parents=True)
    (version / "model.xml").write_text(build_sum(layouts=layouts))
    (version / "model.bin").write_bytes(b"")
