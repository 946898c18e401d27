"""What `helm test` runs as the service account of runners: `check.py FOLDER_OF_PROFILES`.

Every profile has to be one, and an object that is written to the store has to be found, read and deleted again.
"""

import sys
import uuid
from pathlib import Path

from eo_batch.core.errors import EoBatchError
from eo_batch.core.placement import parse_placement
from eo_batch.io.store import parse_store


def check(folder: Path) -> list[str]:
    """Lines that say what was found to work. Raises EoBatchError, saying what does not."""
    stores = set()
    for path in sorted(folder.glob("*.yaml")):
        stores.add(parse_placement(path.read_text(), path.name).store)
    (url,) = stores
    assert url is not None
    lines = [f"profiles: {', '.join(sorted(path.stem for path in folder.glob('*.yaml')))}"]
    store, key, data = parse_store(url), f"helm-test/{uuid.uuid4().hex}", uuid.uuid4().bytes
    store.put(key, data)
    try:
        if store.get(key) != data or key not in store.list("helm-test"):
            raise EoBatchError(f"{store.href(key)} is not what was written")
    finally:
        store.delete(key)
    if store.exists(key):
        raise EoBatchError(f"{store.href(key)} is still there after it was deleted")
    return [*lines, f"store: {url} can be written, read, listed, and deleted from"]


if __name__ == "__main__":
    try:
        print(*check(Path(sys.argv[1])), sep="\n")
    except EoBatchError as error:
        sys.exit(f"error: {error}")
