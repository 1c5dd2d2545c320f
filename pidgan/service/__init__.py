"""Generators as a service: a server of bundles, and its client.

The server answers the open inference protocol (KServe v2), over HTTP by aiohttp and
over gRPC by grpcio with the messages of tritonclient. The client is a generator like
any other, whose targets a server generates.

- `server`: starts and stops a server.
- `client`: generators of a server.
"""

__all__ = ["client", "server"]
