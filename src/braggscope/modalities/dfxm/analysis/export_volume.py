"""Export of a volume to ParaView: a VTK image (.vti), one file, or XDMF (.xdmf) with its numbers in an HDF5 file beside it.

The value of a pixel is written as the value of a cell. Axes of the file: x along columns, y along rows, z along layers, with the
size of a pixel and the spacing of the layers in um where they are known, else 1. NaN stays NaN.
Formats: "VTK File Formats", XML ImageData with raw appended data; XDMF 3, 3DCoRectMesh.
"""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Annotated

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.beside import written_beside
from braggscope.core.errors import InputError

from ..carried import pixel_attributes
from ..geometry import DfxmGeometry

VTK_TYPES = {"f": "Float32", "i": "Int32"}


def export_volume(
    volume: xr.Dataset,
    *,
    output: Path,
    only: Annotated[tuple[str, ...], Says("quantities to write; by default all, with their errors and the flag")] = (),
    geometry: DfxmGeometry | None = None,
) -> dict[str, object]:
    """Volume (or a map, as one layer) for ParaView: .vti, or .xdmf with an .h5 file beside it.

    Returns what was written: the file, its quantities, cells and the size of a cell in um (or px).
    """
    images = _images(volume, only)
    spacing, unit = _spacing(volume, geometry)
    shape = next(iter(images.values())).shape
    suffix = output.suffix.lower()
    if suffix == ".vti":
        files = [_write_vti(output, images, spacing)]
    elif suffix in (".xdmf", ".xmf"):
        files = _write_xdmf(output, images, spacing)
    else:
        raise InputError(f"output must end in .vti or .xdmf, got '{output.name}'")
    return {
        "files": ", ".join(str(file) for file in files),
        "quantities": ", ".join(images),
        "cells (column, row, layer)": " x ".join(str(n) for n in shape[::-1]),
        f"size of a cell ({unit})": " x ".join(f"{s:g}" for s in spacing),
    }


def _images(dataset: xr.Dataset, only: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The variables over (layer, row, column), float32 or int32, by name."""
    dims = dataset["flag"].dims
    if tuple(dims[-2:]) != ("row", "column") or len(dims) > 3:
        raise InputError(f"a volume must be over layer, row and column, got {', '.join(map(str, dims))}")
    names = list(only) or [str(n) for n in dataset.data_vars]
    if unknown := [n for n in names if n not in dataset]:
        raise InputError(f"the volume has no {unknown[0]}; it has: {', '.join(map(str, dataset.data_vars))}")
    chosen = {n: dataset[n].values for n in names if dataset[n].dims == dims}
    if not chosen:
        raise InputError(f"none of {', '.join(names)} is over {', '.join(map(str, dims))}")
    whole = {n: v.astype(np.int32 if v.dtype.kind in "iub" else np.float32) for n, v in chosen.items()}
    return {n: np.ascontiguousarray(v if v.ndim == 3 else v[None]) for n, v in whole.items()}


def _spacing(dataset: xr.Dataset, geometry: DfxmGeometry | None) -> tuple[tuple[float, float, float], str]:
    """Size of a cell along x (columns), y (rows) and z (layers), and its unit."""
    pixel = pixel_attributes(dataset, geometry)
    between = float(dataset.attrs.get("spacing_um", 1.0))
    if len(pixel) < 2:
        return (1.0, 1.0, between), "px"
    return (pixel["pixel_column_um"], pixel["pixel_row_um"], between), "um"


def _write_vti(path: Path, images: dict[str, np.ndarray], spacing: tuple[float, float, float]) -> Path:
    """A VTK image: a header in XML, then each array behind its length in bytes."""
    layers, rows, columns = next(iter(images.values())).shape
    extent = f"0 {columns} 0 {rows} 0 {layers}"
    root = ET.Element("VTKFile", type="ImageData", version="1.0", byte_order="LittleEndian", header_type="UInt64")
    image = ET.SubElement(root, "ImageData", WholeExtent=extent, Origin="0 0 0", Spacing=" ".join(f"{s:.17g}" for s in spacing))
    data = ET.SubElement(ET.SubElement(image, "Piece", Extent=extent), "CellData", Scalars=next(iter(images)))
    offset = 0
    for name, values in images.items():
        kind = VTK_TYPES[values.dtype.kind]
        ET.SubElement(data, "DataArray", type=kind, Name=name, format="appended", offset=str(offset))
        offset += 8 + values.nbytes
    ET.indent(root)
    head = ET.tostring(root, encoding="unicode").removesuffix("</VTKFile>").rstrip()
    with written_beside(path) as file:
        file.write(f'<?xml version="1.0"?>\n{head}\n  <AppendedData encoding="raw">\n_'.encode())
        for values in images.values():
            file.write(struct.pack("<Q", values.nbytes))
            file.write(values.astype(values.dtype.newbyteorder("<")).tobytes())
        file.write(b"\n  </AppendedData>\n</VTKFile>\n")
    return path


def _write_xdmf(path: Path, images: dict[str, np.ndarray], spacing: tuple[float, float, float]) -> list[Path]:
    """An XDMF description and the HDF5 file that it refers to; of XDMF, sizes and spacings go from the slowest axis."""
    import h5py

    beside = path.with_name(f"{path.name}.h5")  # never the name of a map
    shape = next(iter(images.values())).shape
    root = ET.Element("Xdmf", Version="3.0")
    grid = ET.SubElement(ET.SubElement(root, "Domain"), "Grid", Name="volume", GridType="Uniform")
    ET.SubElement(grid, "Time", Value="0")
    ET.SubElement(grid, "Topology", TopologyType="3DCoRectMesh", Dimensions=" ".join(str(n + 1) for n in shape))
    mesh = ET.SubElement(grid, "Geometry", GeometryType="ORIGIN_DXDYDZ")
    for numbers in ("0 0 0", " ".join(f"{s:.17g}" for s in spacing[::-1])):
        ET.SubElement(mesh, "DataItem", Format="XML", Dimensions="3", NumberType="Float", Precision="8").text = numbers
    with written_beside(beside) as target, h5py.File(target, "w") as file:
        for name, values in images.items():
            file.create_dataset(name, data=values, compression="gzip", shuffle=True)
            attribute = ET.SubElement(grid, "Attribute", Name=name, AttributeType="Scalar", Center="Cell")
            kind = "Int" if values.dtype.kind == "i" else "Float"
            dimensions = " ".join(map(str, shape))
            item = ET.SubElement(attribute, "DataItem", Format="HDF", Dimensions=dimensions, NumberType=kind, Precision="4")
            item.text = f"{beside.name}:/{name}"
    ET.indent(root)
    with written_beside(path) as target:
        target.write(ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")
    return [path, beside]
