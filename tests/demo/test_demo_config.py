import sys
from pathlib import Path

import pytest

from virtex.cli import main
from virtex.demo.demo_config import QUICKSTART, DemoConfig, parse_demo
from virtex.errors import ConfigError


def test_without_a_model_the_quickstart_is_served_if_it_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"make quickstart.*virtex demo RUN"):
        DemoConfig()
    QUICKSTART.mkdir(parents=True)
    assert DemoConfig().init == str(QUICKSTART)


def test_all_problems_are_reported_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        DemoConfig("run", max_upload_mb=0, port=70_000, gallery=tmp_path / "gone")
    for option in ("--max_upload_mb", "--port", "--gallery"):
        assert option in str(caught.value)


@pytest.mark.parametrize("init", [["run"], ["--init", "run"], ["--init=run"]], ids=str)
def test_init_comes_first_or_by_its_flag(init, tmp_path):
    config = parse_demo([*init, "--gallery", str(tmp_path), "--port", "0", "--open"])
    assert config == DemoConfig("run", gallery=Path(tmp_path), port=0, open=True)


def test_without_starlette_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    for module in ("virtex.demo.server", "virtex.demo.api"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    assert main(["demo", "run"]) == 2
    error = capsys.readouterr().err
    assert "needs starlette" in error
    assert "pip install starlette uvicorn" in error


def test_the_command_reports_the_error_and_exits_with_2(tmp_path, capsys):
    assert main(["demo", str(tmp_path / "nothing"), "--port", "0"]) == 2
    assert "no such file or folder" in capsys.readouterr().err
