"""`tensorscope run` beside python itself: whatever a script does, both must end alike."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import made_report

from tui.commands import run as running

PYTHON = [sys.executable]
OURS = [sys.executable, "-m", "tui.cli", "run"]

SCRIPTS = {
    "arguments": "import sys; print(sys.argv)",
    "where it is": "import os, sys; print(__file__, sys.path[0], os.getcwd())",
    "what it is": "print(__name__, __doc__, __package__, __spec__, __cached__, sorted(globals()))",
    "a docstring": '"""Says what it does."""\nprint(__doc__)',
    "exit with nothing": "import sys; sys.exit()",
    "exit with a number": "import sys; sys.exit(7)",
    "exit with a text": "import sys; sys.exit('it is over')",
    "exit with an object": "raise SystemExit(['a', 'list'])",
    "quit": "quit(3)",
    "an exception": "def f():\n    return {}['no such key']\nf()",
    "a chain of exceptions": (
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('worse') from error"
    ),
    "an exception in a handler": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    undefined",
    "a group of exceptions": "raise ExceptionGroup('two', [ValueError(1), TypeError(2)])",
    "notes": "e = ValueError('x')\ne.add_note('a note')\nraise e",
    "end of file": "raise EOFError('nothing left')",
    "a broken pipe": "import errno; raise OSError(errno.EPIPE, 'broken')",
    "an exception of click": "import click; raise click.UsageError('not ours')",
    "no memory of the script": "x = 1\nclass A: pass\nprint(A.__module__, 'click' in globals(), 'run' in globals())",
    "a syntax error": "x = 1\ny = = 2",
    "an indentation error": "if True:\nx = 1",
    "a declared encoding": "# -*- coding: latin-1 -*-\nprint('é'.encode())",
    "unicode": "print('größer → 数')\nraise ValueError('数 → größer')",
    "output at exit": "import atexit; atexit.register(print, 'at exit'); print('first'); raise ValueError",
    "a hook": "import sys; sys.excepthook = lambda *a: print('hooked', a[0], a[2].tb_frame.f_code.co_name)\n1/0",
    "a hook that fails": "import sys\ndef hook(*a): raise KeyError('hook')\nsys.excepthook = hook\n1/0",
    "a thread": "import threading, time\nthreading.Thread(target=lambda: (time.sleep(.1), print('late'))).start()",
    "standard input": "import sys; print([line.upper() for line in sys.stdin])",
    "a file beside it": "print(open('data.txt').read())",
    "a module beside it": "import beside; print(beside.__file__); beside.fail()",
    "modules with our names": "import click, tui; print(click.MINE, tui.MINE)",
    "a warning": "import warnings; warnings.warn('careful', DeprecationWarning)",
    "asserts": "assert 1 == 2, 'no'",
    "from the future": "from __future__ import annotations\ndef f(x: Undefined): ...\nprint(f.__annotations__)",
    "no future of ours": "def f(x: int): ...\nprint(f.__annotations__)",
    "annotations": "x: int = 1\nprint(__annotations__)",
    "the last error": "import atexit, sys\natexit.register(lambda: print(repr(sys.last_value), sys.last_type))\n1/0",
    "objects that end": "class A:\n    def __del__(self): print('gone')\na = A()",
    "its own code": "import inspect\ndef f(): pass\nprint(inspect.getsource(f), inspect.getfile(f))",
    "pickles": (
        "import pickle\nclass Point:\n    def __init__(self, x): self.x = x\n"
        "print(pickle.loads(pickle.dumps(Point(3))).x, b'__main__' in pickle.dumps(Point))"
    ),
    "processes": (
        "import multiprocessing as mp\nprint('imported as', __name__ == '__main__')\ndef square(x): return x * x\n"
        "if __name__ == '__main__':\n    with mp.get_context('spawn').Pool(1) as pool: print(pool.map(square, [1, 2]))"
    ),
    "itself": "import sys, __main__; print(__main__.__dict__ is globals(), sys.modules['__main__'] is __main__)",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts, and what they read and import."""
    folder = tmp_path_factory.mktemp("scripts")
    for name, text in SCRIPTS.items():
        (folder / f"{name.replace(' ', '_')}.py").write_text(text, "latin-1" if "latin-1" in text else "utf-8")
    (folder / "data.txt").write_text("42")
    (folder / "beside.py").write_text("def fail():\n    raise RuntimeError('beside')\n")
    for name in ("pack", "mine"):
        (folder / name).mkdir()
    (folder / "pack" / "__init__.py").write_text("print('package')\n")
    (folder / "pack" / "near.py").write_text("x = 3\n")
    (folder / "pack" / "mod.py").write_text(
        "import sys\nfrom .near import x\nprint(x, __name__, __package__, __spec__.name, sys.argv, sys.path[0])\n1/0\n"
    )
    (folder / "pack" / "__main__.py").write_text("import sys; print('main of', __package__, sys.argv[1:], __file__)\n")
    (folder / "mine" / "inner.py").write_text("import sys; print(sys.path[0], __file__, sys.argv)\n")
    return folder


def ended(command: list[str], folder: Path, text: str = "a\nb\n") -> tuple[int, str, str]:
    """Exit code, output and errors, as far as they can be compared."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, input=text, text=True, timeout=60, encoding="utf-8", check=False
    )
    errors = re.sub(r'  File "<frozen runpy>", line \d+, in \w+\n', "", done.stderr)  # python's own way to a module
    return done.returncode, done.stdout, errors


OWN = ("modules with our names",)  # needs a folder of its own: what it shadows would be found by the others


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in OWN])
def test_a_script_ends_as_under_python(name: str, folder: Path) -> None:
    call = [f"{name.replace(' ', '_')}.py", "--help", "-x", "--", "b c", ""]
    assert ended(OURS + call, folder) == ended(PYTHON + call, folder)


@pytest.mark.parametrize(
    "call",
    [
        ["mine/inner.py", "-m"],
        ["./mine/../mine/inner.py"],
        ["-m", "pack.mod", "--help", "--", "-m"],
        ["-m", "pack", "-h"],
        ["-m", "mine.inner"],
        ["-m", "json.tool", "--indent", "1", "list.json"],
        ["pack", "x"],
        ["zipped.zip", "x"],
        ["-", "x"],
    ],
    ids=" ".join,
)
def test_a_program_may_be_a_path_a_module_a_folder_an_archive_or_typed(call: list[str], folder: Path) -> None:
    import zipfile

    (folder / "list.json").write_text("[1]")
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        archive.writestr("__main__.py", "import sys; print(sys.argv, __name__, sys.path[0], __file__)")
    text = "import sys; print(sys.argv, __name__, sys.stdin.read())\n1/0" if call[0] == "-" else ""
    assert ended(OURS + call, folder, text) == ended(PYTHON + call, folder, text)


def test_a_script_finds_its_own_modules_though_we_have_loaded_others_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPTS[OWN[0]])
    (tmp_path / "click.py").write_text("MINE = 'my click'")
    (tmp_path / "tui").mkdir()
    (tmp_path / "tui" / "__init__.py").write_text("MINE = 'my tui'")
    (tmp_path / "elsewhere").mkdir()
    assert ended([*OURS, "../script.py"], tmp_path / "elsewhere") == (0, "my click my tui\n", "")


def test_ctrl_c_ends_the_process_as_it_ends_python(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import atexit, signal\nkept = open('kept.txt', 'w')\nkept.write('kept')\n"
        "atexit.register(print, 'at exit')\nsignal.raise_signal(signal.SIGINT)\n"
    )
    ends = []
    for command in (PYTHON, OURS):
        ends.append((*ended([*command, "interrupted.py"], tmp_path), (tmp_path / "kept.txt").read_text()))
    assert ends[0] == ends[1]
    assert ends[1][0] == -signal.SIGINT


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["trian.py"], "error: there is no script `trian.py`\n\nhint: did you mean `train.py`?"),
        (["nowhere/x.py"], "there is no script `nowhere/x.py`"),
        (["."], "there is no script in the folder `.`"),
        (["-m", "no_such_module_here"], "there is no module `no_such_module_here`"),
        (["-m", "os.nothing"], "there is no module `os.nothing`"),
        ([], "Missing argument 'SCRIPT'"),
    ],
    ids=" ".join,
)
def test_what_is_not_there_is_said_and_exits_with_2(args: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    code, out, err = ended(OURS + args, tmp_path)
    assert (code, out) == (2, "")
    assert words in err


def test_a_script_without_torch_does_not_load_it(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("import sys; print('torch' in sys.modules, 'numpy' in sys.modules)")
    assert ended([*OURS, "s.py"], tmp_path) == (0, "False False\n", "")


def test_its_help_is_only_shown_in_front_of_the_script(tmp_path: Path) -> None:
    code, out, _ = ended([*OURS, "--help"], tmp_path)
    assert code == 0
    assert "SCRIPT" in out


class Explainer:
    """In place of the real one: says what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fails: BaseException | None = None) -> None:
        from types import ModuleType

        self.asked: list[BaseException] = []
        self.fails = fails
        module = ModuleType("tensorscope.live.explain")
        module.explain = self  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "tensorscope.live.explain", module)

    def __call__(self, error: BaseException) -> object:
        self.asked.append(error)
        if self.fails is not None:
            raise self.fails
        return made_report()


def test_the_report_stands_below_in_plain_text_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    explainer = Explainer(monkeypatch)
    error = RuntimeError("mat1 and mat2")
    running._explain(error)
    assert explainer.asked == [error]
    assert capsys.readouterr().err == f"\n{made_report()}\n"


@pytest.mark.parametrize("fails", [KeyError("ours"), KeyboardInterrupt()], ids=repr)
def test_a_failure_to_explain_is_not_heard(
    fails: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Explainer(monkeypatch, fails=fails)
    running._explain(RuntimeError("mat1 and mat2"))
    assert capsys.readouterr().err == ""


def test_what_a_note_says_already_is_not_said_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorscope.live.panel import install

    explainer = Explainer(monkeypatch)
    error = RuntimeError("mat1 and mat2")
    error.add_note(f"\n{made_report()}")
    install(error, made_report())
    running._explain(error)
    assert (explainer.asked, capsys.readouterr().err) == ([], "")


def test_an_error_in_torch_passes_through_with_its_traceback_beginning_in_the_script(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("import torch\ntorch.ones(2, 3) @ torch.ones(4, 5)\n")
    env = os.environ | {"COLUMNS": "80"}
    done = subprocess.run(
        [*OURS, "s.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, env=env, check=False
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith('s.py", line 2, in <module>')
    assert "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)" in done.stderr
