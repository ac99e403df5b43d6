"""Connections to machines that are gone."""

import socket
import sys

import pytest

from virtex import connections


@pytest.mark.skipif(sys.platform != "linux", reason="the options of connections are Linux's")
def test_the_kernel_watches_all_tcp_connections_and_they_stay_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = socket.create_connection(server.getsockname())
        there, _ = server.accept()
        one, other = socket.socketpair()
        with here, there, one, other:
            connections.watch()
            for each in (here, there):
                assert each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                timeout = each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                assert timeout == 1000 * connections.PATIENCE
            here.sendall(b"still here")
            assert there.recv(100) == b"still here"
            one.sendall(b"of no network")
            assert other.recv(100) == b"of no network"
