"""What a run says about its process, machine and repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorscope
from tensorscope.live import environment as home
from tensorscope.live.environment import environment, git_facts, rank, without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs git in `tmp_path/repo`, whatever this machine's settings are."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
    repo = tmp_path / "repo"
    repo.mkdir()

    def run(*command: str) -> str:
        done = subprocess.run(["git", "-C", str(repo), *command], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    run("init", "-b", "trunk")
    return run


@pytest.fixture
def repo(git: Callable[..., str], tmp_path: Path) -> Path:
    """A repository of one commit with the file `train me.py`."""
    folder = tmp_path / "repo"
    (folder / "train me.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-m", "first")
    return folder


def test_the_facts_are_those_of_this_process_and_can_be_written_as_json() -> None:
    facts = json.loads(json.dumps(environment()))
    assert facts["pid"] == os.getpid()
    assert facts["argv"] == sys.argv
    assert facts["folder"] == os.getcwd()
    assert facts["torch"] == torch.__version__
    assert facts["tensorscope"] == tensorscope.__version__
    assert facts["seed"] == torch.initial_seed() == 0
    assert facts["threads"] == torch.get_num_threads()
    assert facts["cpus"] >= 1
    assert facts["cpu"]


def test_asking_wakes_no_accelerator_and_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    environment()
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.cuda.is_initialized()


@pytest.mark.skipif(not os.path.exists("/proc/meminfo"), reason="Linux only")
def test_memory_is_that_of_the_kernel() -> None:
    with open("/proc/meminfo") as lines:
        kilobytes = int(next(line for line in lines if line.startswith("MemTotal")).split()[1])
    assert environment()["memory"] == kilobytes * 1024


def test_deterministic_algorithms_are_told() -> None:
    assert environment()["deterministic"] is False
    torch.use_deterministic_algorithms(True)
    try:
        assert environment()["deterministic"] is True
    finally:
        torch.use_deterministic_algorithms(False)


def test_variables_that_change_a_training_are_told_and_secrets_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"OMP_NUM_THREADS": "3", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "CUDA_VISIBLE_DEVICES": ""}
    hidden = {"AWS_SECRET_ACCESS_KEY": "hush", "PYTORCH_HUB_TOKEN": "hush", "HOME": "hush", "WANDB_API_KEY": "hush"}
    for name, value in (told | hidden).items():
        monkeypatch.setenv(name, value)
    facts = environment()
    assert told.items() <= facts["variables"].items()
    assert not hidden.keys() & facts["variables"].keys()
    assert "hush" not in json.dumps(facts)


def test_ranks_are_those_that_the_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    facts = environment()
    assert (facts["rank"], facts["local_rank"], facts["world_size"], rank()) == (5, 1, 8, 5)


def test_a_rank_that_is_no_number_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "first")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert (rank(), environment()["world_size"]) == (0, 1)


def test_a_process_group_says_its_rank_without_a_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        monkeypatch.setenv("RANK", "7")  # what is left over from something else
        assert rank() == 0
    finally:
        torch.distributed.destroy_process_group()


def test_a_working_folder_that_is_gone_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert environment()["folder"] == ""
    monkeypatch.chdir(tmp_path)


# --- git ---------------------------------------------------------------------------------------------------------


def test_a_clean_repository_says_commit_and_branch(repo: Path, git: Callable[..., str]) -> None:
    assert git_facts(repo) == {"commit": git("rev-parse", "HEAD"), "branch": "trunk", "dirty": False, "changed": []}


def test_a_changed_tracked_file_makes_it_dirty_and_an_untracked_one_does_not(repo: Path) -> None:
    (repo / "notes.txt").write_text("new")
    assert git_facts(repo)["dirty"] is False
    (repo / "train me.py").write_text("a = 2\n")
    facts = git_facts(repo)
    assert (facts["dirty"], facts["changed"]) == (True, ["train me.py"])


def test_renamed_deleted_and_staged_files_are_named(repo: Path, git: Callable[..., str]) -> None:
    for name in ("old.py", "gone.py"):
        (repo / name).write_text(f"name = '{name}'\n" * 20)
    git("add", ".")
    git("commit", "-m", "second")
    git("mv", "old.py", "new.py")
    (repo / "gone.py").unlink()
    (repo / "staged.py").write_text("")
    git("add", "staged.py")
    assert sorted(git_facts(repo)["changed"]) == ["gone.py", "new.py", "staged.py"]


def test_a_merge_in_conflict_is_dirty(repo: Path, git: Callable[..., str]) -> None:
    git("checkout", "-b", "side")
    (repo / "train me.py").write_text("a = 2\n")
    git("commit", "-am", "side")
    git("checkout", "trunk")
    (repo / "train me.py").write_text("a = 3\n")
    git("commit", "-am", "main")
    with pytest.raises(subprocess.CalledProcessError):
        git("merge", "side")
    assert git_facts(repo)["changed"] == ["train me.py"]


def test_a_folder_below_the_root_is_in_the_repository(repo: Path, git: Callable[..., str]) -> None:
    (repo / "deep" / "er").mkdir(parents=True)
    assert git_facts(repo / "deep" / "er")["commit"] == git("rev-parse", "HEAD")


def test_a_repository_without_a_commit_has_a_branch_alone(git: Callable[..., str], tmp_path: Path) -> None:
    assert git_facts(tmp_path / "repo") == {"branch": "trunk", "dirty": False, "changed": []}


def test_a_detached_head_has_no_branch(repo: Path, git: Callable[..., str]) -> None:
    git("checkout", "--detach")
    facts = git_facts(repo)
    assert facts["commit"] == git("rev-parse", "HEAD")
    assert "branch" not in facts


def test_a_worktree_says_its_own_branch(repo: Path, git: Callable[..., str], tmp_path: Path) -> None:
    git("worktree", "add", "-b", "second", str(tmp_path / "twin"))
    (tmp_path / "twin" / "train me.py").write_text("a = 2\n")
    assert git_facts(tmp_path / "twin")["branch"] == "second"
    assert git_facts(tmp_path / "twin")["dirty"] is True
    assert git_facts(repo)["dirty"] is False


def test_a_bare_repository_says_commit_branch_and_remote(repo: Path, git: Callable[..., str], tmp_path: Path) -> None:
    git("clone", "--bare", str(repo), str(tmp_path / "bare"))
    expected = {"commit": git("rev-parse", "HEAD"), "branch": "trunk", "remote": str(repo)}
    assert git_facts(tmp_path / "bare") == expected


def test_without_a_repository_nothing_is_said(tmp_path: Path) -> None:
    assert git_facts(tmp_path) == {}
    assert git_facts(tmp_path / "missing") == {}


def test_without_git_nothing_is_said(repo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_facts(repo) == {}


def test_a_git_that_fails_says_nothing(repo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\necho '# branch.oid 123'\nexit 1\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_facts(repo) == {}


def test_a_git_that_hangs_is_given_up(repo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(home, "_PATIENCE", 0.05)
    assert git_facts(repo) == {}


def test_a_git_directory_of_a_surrounding_hook_is_not_taken(
    repo: Path, git: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = git("rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert git_facts(repo)["commit"] == commit


def test_asking_writes_nothing_and_runs_no_monitor(repo: Path, git: Callable[..., str], tmp_path: Path) -> None:
    git("config", "core.fsmonitor", f"touch {tmp_path / 'ran'}; false")
    index = repo / ".git" / "index"
    os.utime(repo / "train me.py", (0, 0))  # the index would be refreshed
    before = index.read_bytes()
    assert git_facts(repo)["dirty"] is False
    assert index.read_bytes() == before
    assert not (tmp_path / "ran").exists()


def test_the_remote_is_told_without_credentials(repo: Path, git: Callable[..., str]) -> None:
    git("remote", "add", "mirror", "https://mirror.example.org/m.git")
    assert git_facts(repo)["remote"] == "https://mirror.example.org/m.git"
    git("remote", "add", "origin", "https://ada:s3cret@example.org:8443/lab/net.git?private_token=hush")
    assert git_facts(repo)["remote"] == "https://example.org:8443/lab/net.git"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("git@github.com:lab/net.git", "git@github.com:lab/net.git"),
        ("/srv/net.git", "/srv/net.git"),
        ("ssh://git:pw@example.org/net.git", "ssh://example.org/net.git"),
        ("https://token@example.org/net.git#x", "https://example.org/net.git"),
        ("https://a:p@ss@example.org/net", "https://example.org/net"),
        ("https://[broken/net", ""),
    ],
)
def test_an_address_loses_user_and_password(address: str, shown: str) -> None:
    assert without_credentials(address) == shown


@given(st.text("abc:@-._~%", min_size=1), st.sampled_from(["https", "ssh", "git", "file"]))
def test_no_user_part_survives(user: str, scheme: str) -> None:
    assert without_credentials(f"{scheme}://{user}@example.org/net.git") == f"{scheme}://example.org/net.git"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_it_runs_on_a_thread_while_the_process_forks(repo: Path) -> None:
    """A child that outlives git must not keep open what the asking thread waits for."""
    script = f"""
import os, signal, threading
from tensorscope.live.environment import git_facts
answers, children = [], []
asking = threading.Thread(target=lambda: answers.extend(git_facts({str(repo)!r}) for _ in range(10)))
asking.start()
while asking.is_alive():
    if len(children) < 100:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
    asking.join(0.001)
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
assert len(children) > 1 and len(answers) == 10 and all("commit" in answer for answer in answers), answers
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr


def test_it_answers_the_same_on_another_thread(repo: Path) -> None:
    answers: list[dict[str, object]] = []
    thread = threading.Thread(target=lambda: answers.append(git_facts(repo)))
    thread.start()
    thread.join()
    assert answers == [git_facts(repo)]
