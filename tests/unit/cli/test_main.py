"""The program: exit codes, where messages go, and how quickly help comes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from perennial import __version__, cli
from perennial.cli.failures import CODES, exit_code, facts
from perennial.cli.reference import reference
from perennial.core import errors

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


def test_the_reference_is_not_stale():
    """Run `python -m perennial.cli.reference > docs/cli.md` after a change of the commands."""
    assert PAGE.read_text(encoding="utf-8") == reference()


def test_every_command_takes_json():
    """A command without it cannot be used by programs."""
    from typer.main import get_command

    for name, command in get_command(cli.app).commands.items():
        assert any("--json" in parameter.opts for parameter in command.params), name


def test_every_error_of_the_tree_has_an_exit_code():
    """Codes are as documented, and an error of a new kind must be given one."""
    made = {
        errors.ConfigError("f", 1, "n"): 2,
        errors.DataError("d"): 3,
        errors.LearnerError("l"): 4,
        errors.LedgerError("l"): 5,
        errors.FormatError("f"): 5,
        errors.MissingExtra("river", "x"): 6,
        typer.BadParameter("b"): 2,
        KeyError("bug"): 1,
    }
    assert {error: exit_code(error) for error in made} == made
    tree = {kind for kind in errors.PerennialError.__subclasses__() if kind.__module__ == errors.__name__}
    assert tree <= {kind for kind, _, _ in CODES}


def test_facts_of_errors_are_plain():
    """Programs read the field or the extra without parsing text."""
    assert facts(errors.MissingExtra("river", "x"))["extra"] == "river"
    assert facts(errors.ConfigError("jobs", 0, "n"))["field"] == "jobs"
    assert facts(KeyError("x"))["kind"] == "Bug"


@pytest.mark.parametrize("arguments", [["--version"], ["version"], ["--help"], ["backtest", "--help"]])
def test_harmless_commands_end_well(arguments, capsys):
    """They print and give 0."""
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out


def test_version_says_which(capsys):
    """As text and as JSON."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"perennial {__version__}\n"
    assert cli.main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["perennial"] == __version__


@pytest.mark.parametrize(
    "arguments",
    [["backtst"], ["backtest", "--nonsense"], ["init"], ["backtest", "--jobs", "0"], ["backtest", "--jobs"]],
)
def test_wrong_arguments_are_one_message_and_code_2(arguments, capsys):
    """On stderr, without a traceback; on stdout one JSON document if asked for."""
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert "Traceback" not in err
    if arguments[-1] != "--jobs":
        assert cli.main([*arguments, "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["kind"] == "UsageError"


def test_a_wrong_file_is_told_with_all_its_problems(tmp_path, capsys):
    """The message for people on stderr, and lines and paths for programs on stdout."""
    (tmp_path / "p.yaml").write_text("stream: {source: a}\nmodel: 5\n")
    assert cli.main(["backtest", "-c", str(tmp_path / "p.yaml"), "--json"]) == 2
    out, err = capsys.readouterr()
    problems = json.loads(out)["error"]["problems"]
    assert {problem["path"] for problem in problems} == {"stream.time", "stream.label", "strategies", "model"}
    assert "line 2: model=5: write text" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [(errors.DataError("rows are wrong"), 3), (KeyboardInterrupt(), 130), (ZeroDivisionError("oops"), 1)],
)
def test_errors_inside_a_command_become_codes(monkeypatch, tmp_path, capsys, error, code):
    """Only a bug has a traceback; an interruption says that finished work is kept."""

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("perennial.config.guessing.guess", fail)
    assert cli.main(["init", "data.csv", "-o", str(tmp_path / "p.yaml")]) == code
    err = capsys.readouterr().err
    assert ("Traceback" in err) == (code == 1)
    assert ("Interrupted" in err) == (code == 130)


def test_warnings_are_one_line_without_our_code(monkeypatch, tmp_path, capsys):
    """What the library warns of is for the user, not about a file of ours."""
    import warnings

    def warn(*args, **kwargs):
        warnings.warn("times are naive", stacklevel=1)
        raise errors.DataError("stop")

    monkeypatch.setattr("perennial.config.guessing.guess", warn)
    with warnings.catch_warnings(action="default"):  # as a program has them, where tests make them errors
        cli.main(["init", "data.csv", "-o", str(tmp_path / "p.yaml")])
    assert capsys.readouterr().err.splitlines()[0] == "Warning: times are naive"


def test_help_loads_nothing_heavy():
    """`perennial --help` imports no array library, no framework and no validator."""
    code = (
        "import sys; from perennial.cli import main; main(['--help']);"
        "heavy = {'numpy', 'pyarrow', 'pandas', 'sklearn', 'pydantic', 'yaml'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
