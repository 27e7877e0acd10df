"""Threads and descriptors that an import leaves in the zygote are reported."""

import re
from textwrap import dedent

from tests.child.test_handler_import import import_in_a_process, serving, write


def test_a_thread_started_by_an_import_is_reported(tmp_path):
    source = """
    import threading
    threading.Thread(target=threading.Event().wait, name="refresh", daemon=True).start()
    """
    write(tmp_path, words=source)

    [warning] = import_in_a_process(tmp_path).warnings

    assert warning.startswith(
        f"{tmp_path / 'words.py'}: module 'words' started the thread 'refresh' when it was imported"
    )


def test_descriptors_that_an_import_leaves_open_are_reported(tmp_path):
    source = f"""
    import ctypes, os, socket

    there = socket.create_server(("127.0.0.1", 0))
    here = socket.create_connection(there.getsockname())
    inside, outside = os.pipe()
    data = open(__file__)
    log = open({str(tmp_path / "log")!r}, "a")
    null = open(os.devnull)

    libc = ctypes.CDLL(None)
    work = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
    libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, ctypes.cast(libc.pause, ctypes.c_void_p), None)
    """
    write(tmp_path, leaves=dedent(source) + "\n" + serving("leaves"))

    warnings = import_in_a_process(tmp_path).warnings

    assert all(warning.startswith(f"{tmp_path / 'leaves.py'}: module 'leaves' ") for warning in warnings)
    said = [warning.partition("module 'leaves' ")[2].partition(" when it was imported")[0] for warning in warnings]
    assert said[0].startswith("started a native thread (python")
    assert [re.sub(r"\d{2,}", "N", each) for each in sorted(said[1:])] == [
        "left a connection to N.0.0.1:N open",
        "left a descriptor (pipe:[N]) open",
        "left a descriptor (pipe:[N]) open",
        "left a listening socket on N.0.0.1:N open",
        "left the file " + re.sub(r"\d{2,}", "N", str(tmp_path / "leaves.py")) + " open",
    ]
