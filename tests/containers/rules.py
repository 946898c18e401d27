"""What every image of this project has to keep to. Each rule yields one complaint a violation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tests.containers.dockerfile import Dockerfile

Rule = Callable[[Dockerfile], Iterator[str]]

_SECRET = re.compile(r"token|secret|passw|credential|private|(api|access|account)_?key", re.IGNORECASE)


def numeric_user(file: Dockerfile) -> Iterator[str]:
    """Kubernetes can tell that a numeric user is not root, of a name it cannot."""
    users = [instruction.text for stage in file.image for instruction in stage.of("USER")]
    if not users:
        yield "the image runs as root: no USER"
    elif not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
        yield f"USER {users[-1]} is not uid:gid in numbers other than 0"


def built_elsewhere(file: Dockerfile) -> Iterator[str]:
    """Package managers and build backends stay behind, in a stage that the image does not stand on."""
    layers = {stage.name for stage in file.image}
    borrowed = [
        (stage, word)
        for stage in file.image
        for run in stage.of("RUN")
        for word in run.text.split()
        if word.endswith("/bin/pip")
    ]
    for stage, pip in borrowed:
        lent = {
            source
            for run in stage.of("RUN")
            for source, target in re.findall(r"--mount=type=bind,from=(\w+),source=\S+,target=([^\s,]+)", run.text)
            if pip.startswith(target)
        }
        if not lent or lent & layers:
            yield f"{stage.name or 'the last stage'} runs {pip}, which is not mounted from another stage"
    for stage in file.image:
        for run in stage.of("RUN"):
            if re.search(r"\b(gcc|g\+\+|build-essential|python3-(dev|pip|venv)|git|curl|wget)\b", run.text):
                yield f"{stage.name} installs what images do not need: {run.text}"


def pinned(file: Dockerfile) -> Iterator[str]:
    """Whatever comes from an index is pinned by constraints.txt; the wheel of eo-batch asks no index."""
    for stage in file.stages:
        for run in stage.of("RUN"):
            for command in re.split(r"&&|;", run.text):
                asks = re.search(r"\bpip\b.*\b(install|wheel|download)\b", command)
                if asks and not {"--constraint", "--no-index"} & set(command.split()):
                    yield f"no --constraint: {command.strip()}"
                if asks and "--no-index" not in command and "type=cache,target=/root/.cache/pip" not in run.text:
                    yield f"no cache for pip: {command.strip()}"


def no_remote_add(file: Dockerfile) -> Iterator[str]:
    """ADD fetches URLs and unpacks archives, neither of which a cache or a reader sees."""
    for stage in file.stages:
        for add in stage.of("ADD"):
            yield f"ADD {add.text}: take COPY"


def no_secrets(file: Dockerfile) -> Iterator[str]:
    """Build arguments and variables stay readable in the image's history."""
    every = [*file.arguments, *(instruction for stage in file.stages for instruction in stage.instructions)]
    for instruction in every:
        if instruction.keyword in {"ARG", "ENV"}:
            names = re.findall(r"(?:^|\s)(\w+)(?==|$)", instruction.text)
            yield from (f"{instruction.keyword} {name} looks like a secret" for name in names if _SECRET.search(name))


def nothing_left(file: Dockerfile) -> Iterator[str]:
    """Lists of packages, recommended packages and byte code that goes stale stay out of the layers."""
    for stage in file.image:
        for run in stage.of("RUN"):
            if "apt-get" in run.text and "rm -rf /var/lib/apt/lists/*" not in run.text:
                yield f"{stage.name} leaves lists of apt"
            if "apt-get install" in run.text and "--no-install-recommends" not in run.text:
                yield f"{stage.name} installs recommended packages"
            if re.search(r"pip\b.*\binstall\b", run.text) and not re.search(r"--no-compile\b.*\btrim\.py\b", run.text):
                yield f"{stage.name} leaves what pip compiled, and tests of other projects"


def starts_under_init(file: Dockerfile) -> Iterator[str]:
    """`args` alone name the program; an init passes signals on to it and reaps what it leaves."""
    entry = [instruction for stage in file.image for instruction in stage.of("ENTRYPOINT")]
    if not entry or entry[-1].argv != ["/usr/bin/tini", "--"]:
        yield 'ENTRYPOINT is not ["/usr/bin/tini", "--"]'
    command = [instruction for stage in file.image for instruction in stage.of("CMD")]
    if not command or command[-1].argv is None:
        yield "CMD is missing, or goes through a shell"


def read_only_root(file: Dockerfile) -> Iterator[str]:
    """All that programs write by themselves goes to /tmp."""
    text = " ".join(env.text for stage in file.image for env in stage.of("ENV"))
    for setting in ("HOME=/tmp", "PREFECT_HOME=/tmp/", "DASK_TEMPORARY_DIRECTORY=/tmp/", "PYTHONDONTWRITEBYTECODE=1"):
        if not re.search(rf"(^|\s){setting}", text):
            yield f"ENV has no {setting}"


def code_comes_last(file: Dockerfile) -> Iterator[str]:
    """A change of the code moves one layer: no layer after it, and none before it that sees the code."""
    image = [instruction for stage in file.image for instruction in stage.instructions]
    layers = [instruction for instruction in image if instruction.keyword in {"COPY", "RUN"}]
    if layers[-1].text != "--from=application /opt/application /opt":
        yield f"the last layer is {layers[-1].keyword} {layers[-1].text}"
    for stage in file.stages:
        if stage.name != "application" and any("eo_batch" in copy.text for copy in stage.of("COPY")):
            yield f"{stage.name} is built again whenever the code changes"


RULES: tuple[Rule, ...] = (
    numeric_user,
    built_elsewhere,
    pinned,
    no_remote_add,
    no_secrets,
    nothing_left,
    starts_under_init,
    read_only_root,
    code_comes_last,
)
