"""A port of this machine that leads to a port of a pod, for those outside of its cluster."""

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress


class Forward:
    """Listens on loopback, and carries each connection through the Kubernetes API to a pod, until it is closed."""

    def __init__(self, namespace: str, pod: str, port: int, context: str | None = None) -> None:
        """Raises OSError if it does not listen within 30 s. `context` is one of the kube config, None the current."""
        self.pod = pod
        self._where = namespace, port, context
        self._listens: Future[int] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name=f"port {port} of {pod}", daemon=True)
        self._thread.start()
        try:
            self.address = f"127.0.0.1:{self._listens.result(timeout=30)}"
        except Exception as error:
            self.close()
            raise OSError(f"no port can be forwarded to pod {pod}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Stop listening, and cut what is connected."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if not self._listens.done():
                self._listens.set_exception(error)

    async def _serve(self) -> None:
        import kr8s.asyncio
        from kr8s.asyncio.objects import Pod

        self._ended, self._loop = asyncio.Event(), asyncio.get_running_loop()
        # A connection that fails tells so to whoever connects.
        self._loop.set_exception_handler(lambda *_: None)
        namespace, port, context = self._where
        api = await kr8s.asyncio.api(context=context, namespace=namespace)
        pod = await Pod.get(self.pod, namespace=namespace, api=api)
        async with pod.portforward(port, local_port="auto") as local:
            self._listens.set_result(local)
            await self._ended.wait()
