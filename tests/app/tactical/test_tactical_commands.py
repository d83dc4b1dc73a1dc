"""The command line trains, judges and simulates; a mistake is one line and exit code 2."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.market.files import read_bars
from app.tactical.__main__ import main

TRAIN = ["--episodes", "128", "--checkpoint-every", "64"]


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bars") / "bars.csv"
    assert main(["simulate", str(file), "--bars", "600", "--seed", "3"]) == 0
    return file


@pytest.fixture(scope="module")
def trained(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    assert main(["train", str(bars), "--out", str(out), *TRAIN]) == 0
    return out


def test_a_simulated_file_is_one_that_can_be_read(bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(read_bars(bars)) == 600
    again = bars.with_suffix(".parquet")
    assert main(["simulate", str(again), "--bars", "600", "--seed", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bars"] == 600
    assert (read_bars(again).close == read_bars(bars).close).all()


def test_a_training_leaves_a_model_a_report_and_pictures(trained: Path) -> None:
    names = {file.name for file in trained.iterdir()}
    assert {"report.md", "report.json", "model.json", "training.json"} <= names
    for picture in ("equity", "learning"):
        assert (trained / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (trained / f"{picture}.svg").read_bytes()
    report = json.loads((trained / "report.json").read_text())
    assert {score["name"] for score in report["scores"]} == {
        "trained",
        "hold",
        "buy_and_hold",
        "random",
        "momentum_rule",
    }
    assert "| buy_and_hold |" in (trained / "report.md").read_text()


def test_a_model_is_judged_on_other_bars(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.parquet"
    main(["simulate", str(other), "--bars", "400", "--seed", "9"])
    capsys.readouterr()
    assert main(["evaluate", str(other), "--model", str(trained), "--json", "--out", str(tmp_path / "report")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["decisions"] == 400 - 1 - 54
    assert (tmp_path / "report" / "equity.svg").exists()


@pytest.mark.slow
def test_an_interrupted_training_says_how_to_go_on(bars: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.tactical", "train", str(bars), "--out", str(tmp_path), "--episodes", "100000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        os.kill(process.pid, signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == 130
    assert told.strip().splitlines()[-1].endswith("the state is saved, go on with --resume")
    assert (tmp_path / "training.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "none.csv", "--out", "OUT"], "none.csv: cannot be read"),
        (["train", "BARS", "--out", "OUT", "--episodes", "0"], "--episodes 0:"),
        (["train", "BARS", "--out", "OUT", "--held-out", "2"], "--held-out 2.0:"),
        (["train", "BARS", "--out", "OUT", "--device", "tpu"], "--device tpu: 'tpu' is no"),
        (["train", "BARS", "--out", "TRAINED"], "already holds a training; go on with --resume"),
        (["evaluate", "BARS", "--model", "OUT"], "no checkpoint of that name"),
        (["simulate", "bars.txt"], "expected .csv or .parquet"),
        (["simulate", "OUT/none/bars.csv"], "cannot be written"),
        (["simulate", "OUT/bars.csv", "--bars", "0"], "--bars must be at least 1"),
        (["simulate", "OUT/bars.csv", "--minutes", "5000"], "--minutes 5000: BULL"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(
    bars: Path,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    places = {"BARS": str(bars), "TRAINED": str(trained), "OUT": str(tmp_path)}
    told = []
    for argument in arguments:
        for name, place in places.items():
            argument = argument.replace(name, place)  # noqa: PLW2901 - a template filled step by step
        told.append(argument)
    capsys.readouterr()
    assert main(told) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error


def test_an_unknown_option_exits_with_two() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "--nonsense"])
    assert caught.value.code == 2
