import sys
from pathlib import Path

import pytest

from virtex.cli import main
from virtex.demo.demo_config import QUICKSTART, DemoConfig, parse_demo
from virtex.demo.host_names import host_name
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


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("demo.example", "demo.example"),
        (" Demo.example:8080", "demo.example"),
        ("https://x.example", "x.example"),
        ("http://x.example:80/page", "x.example"),
        ("my_machine", "my_machine"),
        ("192.0.2.1:7860", "192.0.2.1"),
        ("::1", "::1"),
        ("[fe80::1]:7860", "fe80::1"),
    ],
)
def test_hosts_may_be_given_as_addresses(given, name):
    config = DemoConfig("run", allowed_hosts=f"a.example, {given},")
    assert config.named_hosts == ["a.example", given.strip()]
    assert host_name(given) == name


@pytest.mark.parametrize("given", ["*", "*.example", "http://[", ":8080", "a b", "https://", "-a"])
def test_what_can_never_be_a_host_is_refused(given):
    with pytest.raises(ConfigError) as caught:
        DemoConfig("run", allowed_hosts=f"demo.example,{given}", port=-1)
    assert f"--allowed_hosts {given} has no host name" in str(caught.value)
    assert "--allowed_hosts demo" not in str(caught.value)
    assert "--port" in str(caught.value)


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
