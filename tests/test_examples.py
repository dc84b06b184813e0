"""Every example runs and says what its first lines promise; README's code is one of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parent.parent
SAID = {
    "watch_your_training.py": r"loss 0\.00\d+, recorded in runs/mine",
    "explain_the_flatten.py": r"(?s)`fc1` got 1600 .*1600 = 64 · 5 · 5.*make `fc1` `nn.Linear\(1600, 128\)`.*\(tried",
    "find_the_nan.py": r"nan_inf at normalise: `div` at .*find_the_nan.py:22 .* divided by 1 zero .* at step 30",
}


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_says_what_it_promises(path: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(SAID[path.name], done.stdout)


def test_the_code_in_the_readme_is_the_example() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block.strip() in (ROOT / "examples" / "watch_your_training.py").read_text()


def test_the_readme_lists_every_rule() -> None:
    from tensorscope.diagnosis.engine import FAMILIES, RULES

    readme = (ROOT / "README.md").read_text()
    rules = [rule for name in RULES for rule in FAMILIES.get(name, (name,))]
    assert all(f"`{rule}`" in readme for rule in rules)


def test_every_picture_in_the_readme_exists() -> None:
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / unquote(name)).exists(), name
