"""The worker's side of payload and frame without the worker: a child that is told what to do over its stdin.

Imported by tests, and by the scripts that tests run as `__main__`.
"""

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

from flowyml.executors.process.protocol.function_payload import build_payload
from flowyml.executors.process.protocol.value_pickle import dump_value, load_value

HERE = Path(__file__).parent

CHILD = """
import os, pickle, sys
asks, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
sys.path[:] = pickle.load(asks)
from flowyml.executors.process.protocol import driver_environment
from flowyml.executors.process.worker.functions import LoadFailure, LoadedPayload
from flowyml.executors.process.protocol.value_pickle import dump_result, load_value
from flowyml.import_guard import loading

def load(data):
    global functions
    opened = LoadedPayload(data)
    functions = [opened.load(place) for place in range(len(opened))]
    return [f.exception if isinstance(f, LoadFailure) else None for f in functions]

def call(index, data):
    with loading():
        arguments = load_value(data)
    return dump_result(functions[index](*arguments))

verbs = {"load": load, "call": call}
verbs |= {name: getattr(driver_environment, name) for name in ("apply", "restore_cwd", "reapply_logging_config")}
while True:
    try:
        verb, *arguments = pickle.load(asks)
    except EOFError:
        os._exit(0)
    try:
        answer = (verbs[verb](*arguments), None)
    except BaseException as error:
        answer = (None, error)
    pickle.dump(answer, answers)
    answers.flush()
"""


class Worker:
    """A child process that loads payloads, applies frames and calls functions."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._send(sys.path)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)

    def _send(self, message):
        self.process.stdin.write(pickle.dumps(message))
        self.process.stdin.flush()

    def ask(self, *message):
        """Send a verb with its arguments; return the answer or raise what was raised."""
        self._send(message)
        answer, error = pickle.load(self.process.stdout)
        if error is not None:
            raise error
        return answer

    def load(self, *functions):
        """Load functions; return what each raised, or None."""
        return self.ask("load", build_payload(functions, [f"function {i}" for i in range(len(functions))]).data)

    def call(self, index, *arguments):
        """Call the function of this index; return its result."""
        return load_value(self.ask("call", index, dump_value(arguments)))

    def run(self, function, *arguments):
        """Load one function and call it."""
        assert self.load(function) == [None]
        return self.call(0, *arguments)


def run_script(text, *, how="file", folder=None):
    """Run Python text as `__main__`, by file, by -c or by stdin; it must end well. Returns what it printed."""
    text = f"import sys; sys.path.insert(0, {str(HERE)!r})\nfrom payload_child import *\n" + textwrap.dedent(text)
    if how == "file":
        file = Path(folder) / "script.py"
        file.write_text(text)
    command = {"file": [str(folder and Path(folder) / "script.py")], "c": ["-c", text], "stdin": ["-"]}[how]
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        input=text if how == "stdin" else "",
        capture_output=True,
        text=True,
        timeout=50,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
