"""The delay line, without a network: a pair of datagram sockets stands in for the tun device."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

from followme.lab.delayline import Line, timeout


def test_packets_leave_in_order_and_not_before_their_time() -> None:
    line = Line(fd=-1, delay_s=0.025)
    line.put(b"one", 10.0)
    line.put(b"two", 10.001)
    assert line.due(10.0249) == []
    assert line.due(10.0255) == [b"one"]
    assert line.due(11.0) == [b"two"]
    assert line.next_due() is None


def test_a_full_queue_drops_and_counts() -> None:
    line = Line(fd=-1, delay_s=1.0, limit=2)
    for packet in (b"1", b"2", b"3"):
        line.put(packet, 0.0)
    assert (line.packets, line.dropped) == (2, 1)
    assert line.due(5.0) == [b"1", b"2"]


def test_it_sleeps_until_the_earliest_packet_and_for_ever_when_idle() -> None:
    fast, slow = Line(fd=-1, delay_s=0.5), Line(fd=-1, delay_s=25.0)
    assert timeout([fast, slow], 0.0) is None
    slow.put(b"s", 0.0)
    assert timeout([fast, slow], 5.0) == 20.0
    fast.put(b"f", 5.0)
    assert timeout([fast, slow], 5.25) == 0.25
    assert timeout([fast, slow], 99.0) == 0.0


def test_the_process_delays_and_reports() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.settimeout(10)
    command = [sys.executable, "-m", "followme.lab.delayline", f"{theirs.fileno()}:30000"]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE) as process:
        theirs.close()
        try:
            ours.send(b"warm up")
            assert ours.recv(100) == b"warm up"
            started = time.monotonic()
            for number in range(5):
                ours.send(bytes([number]))
            assert [ours.recv(100) for _ in range(5)] == [bytes([number]) for number in range(5)]
            assert time.monotonic() - started >= 0.030
            os.kill(process.pid, signal.SIGUSR1)
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == {"packets": 6, "dropped": 0, "queued": 0}
        finally:
            process.kill()
            ours.close()
