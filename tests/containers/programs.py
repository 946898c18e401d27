"""Programs that tests run in the images. Each raises where something is not as it should be."""

from __future__ import annotations

IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    print(name)
"""
"""Imports the modules that it is given."""

RASTERS = """
import numpy, rasterio
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject, transform
values = numpy.arange(64 * 64, dtype="uint16").reshape(64, 64)
form = {"driver": "GTiff", "height": 64, "width": 64, "count": 1, "dtype": "uint16", "crs": "EPSG:32631",
        "transform": from_origin(500000, 5700000, 10, 10), "compress": "deflate", "tiled": True, "blockxsize": 64,
        "blockysize": 64}
with rasterio.open("/tmp/values.tif", "w", **form) as file:
    file.write(values, 1)
with rasterio.open("/tmp/values.tif") as file:
    assert (file.read(1) == values).all()
(longitude,), (latitude,) = transform("EPSG:32631", "EPSG:4326", [500000], [5700000])
assert abs(longitude - 3) < 1e-9 and 51.4 < latitude < 51.5, (longitude, latitude)
print("same pixels")
"""
"""Writes and reads a GeoTIFF, and asks PROJ's database."""

DASK = """
from distributed import Client, LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            print(client.submit(sum, range(10)).result())
"""
"""A Dask worker in a process of its own."""

PREFECT = """
import os
os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "200"
from prefect import flow
@flow
def doubled(value: int) -> int:
    return 2 * value
if __name__ == "__main__":
    print(doubled(21))
"""
"""A flow run, with Prefect's own server and its database for as long as it takes."""

ORPHAN = """
import os, pathlib, time
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.2)
    os._exit(0)
os.wait()
time.sleep(1)
states = [path.read_text().rpartition(")")[2].split()[0] for path in pathlib.Path("/proc").glob("[0-9]*/stat")]
print(states.count("Z"), "zombies")
"""
"""Leaves a process to process 1, which has to reap it."""

TERMINATE = """
import os, signal, time
print(time.time(), flush=True)
os.kill(1, signal.SIGTERM)
"""
"""What the node does when it ends a pod, and when."""

ENCODER = """
import torch
from eo_batch.core.learning import EncoderSpec
from eo_batch.models.batch import Batch
from eo_batch.models.encoder import MultiSensorViT, SensorShape
shapes = (SensorShape("s1", 2, 16, 4), SensorShape("s2", 3, 8, 2))
encoder = MultiSensorViT.build(shapes, EncoderSpec(dim=16, depth=2, heads=2), seed=3)
pixels = {shape.name: torch.randn(4, shape.bands, shape.px, shape.px) for shape in shapes}
encoded = encoder(Batch(pixels, {name: torch.ones_like(values, dtype=torch.bool) for name, values in pixels.items()}))
encoded.pooled_nd.square().sum().backward()
gradients = [parameter.grad for parameter in encoder.parameters() if parameter.grad is not None]
assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
print(tuple(encoded.pooled_nd.shape))
"""
"""An encoder embeds a batch, and learns."""

GROUP = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
if dist.get_rank() == 0:
    print(total.item())
dist.destroy_process_group()
"""
"""Processes that torchrun started add up."""
