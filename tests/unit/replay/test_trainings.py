"""The cache of trainings: made once, loaded after, and never trusted when damaged."""

import os

import pytest
from sklearn.naive_bayes import GaussianNB

from perennial.learners import as_learner
from perennial.replay.trainings import Trainings, prune
from perennial.testing import make_examples

KEY = "ab" + "0" * 62
DATA = make_examples(50)


@pytest.fixture
def template():
    """A learner."""
    return as_learner(GaussianNB())


def counted(template, made):
    """A training that counts itself."""

    def make():
        made.append(1)
        return template.fit(DATA, 0)

    return make


def test_a_training_is_made_once(tmp_path, template):
    """Who asks next is given what was made, with what it had cost."""
    made = []
    first = Trainings(tmp_path).obtain(KEY, template, counted(template, made))
    second = Trainings(tmp_path).obtain(KEY, template, counted(template, made))
    assert made == [1]
    assert (first.shared, second.shared) == (False, True)
    assert second.cpu_seconds == first.cpu_seconds
    assert second.model.digest() == first.model.digest()


@pytest.mark.parametrize(("folder", "key"), [(True, None), (False, KEY)])
def test_without_a_key_or_a_folder_nothing_is_kept(tmp_path, template, folder, key):
    """Every training is made when it is asked for."""
    made = []
    trainer = Trainings(tmp_path if folder else None)
    for _ in range(2):
        assert not trainer.obtain(key, template, counted(template, made)).shared
    assert made == [1, 1]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("damage", [b"", b"{}", b"not json\nat all", None])
def test_a_damaged_entry_is_made_again(tmp_path, template, damage):
    """And is whole afterwards."""
    made = []
    Trainings(tmp_path).obtain(KEY, template, counted(template, made))
    path = tmp_path / KEY[:2] / KEY[2:]
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    assert not Trainings(tmp_path).obtain(KEY, template, counted(template, made)).shared
    assert Trainings(tmp_path).obtain(KEY, template, counted(template, made)).shared
    assert made == [1, 1]


def test_a_training_that_fails_leaves_nothing(tmp_path, template):
    """The next one who asks trains."""

    def fail():
        raise FloatingPointError("diverged")

    with pytest.raises(FloatingPointError):
        Trainings(tmp_path).obtain(KEY, template, fail)
    made = []
    assert not Trainings(tmp_path).obtain(KEY, template, counted(template, made)).shared


def test_a_model_that_is_dear_to_keep_and_cheap_to_make_is_not_kept(tmp_path, template, monkeypatch):
    """Large models of trivial trainings would fill the folder."""
    monkeypatch.setattr(type(template), "save", lambda self: bytes(2**27))
    trainer = Trainings(tmp_path)
    trainer.obtain(KEY, template, lambda: template.fit(DATA, 0))
    assert not (tmp_path / KEY[:2] / KEY[2:]).exists()


def test_pruning_takes_the_oldest_first_and_leaves_locks(tmp_path):
    """What was used lately stays, trainings and runs alike, and so do runs that someone reads."""
    folder = tmp_path / "trainings" / "ab"
    folder.mkdir(parents=True)
    for age in range(4):
        path = folder / f"entry{age}"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - 2 * age, 1e9 - 2 * age))
        (folder / f"entry{age}.lock").touch()
    for age, name in ((5, "old"), (99, "read")):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "said").write_bytes(bytes(100))
        os.utime(run, (1e9 - age, 1e9 - age))
    assert prune(tmp_path, 250, spare=[tmp_path / "runs" / "read"]) == 3
    assert sorted(p.name for p in folder.iterdir() if p.suffix != ".lock") == ["entry0", "entry1"]
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["read"]
    assert len(list(folder.glob("*.lock"))) == 4
    assert prune(tmp_path, 250, spare=[tmp_path / "runs" / "read"]) == 0
