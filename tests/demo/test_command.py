import sys

import pytest

from virtex.cli import main
from virtex.demo.command import QUICKSTART, DemoConfig, demo
from virtex.demo.server import listen
from virtex.errors import ConfigError


def test_without_a_model_the_quickstart_is_served_if_it_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"make quickstart.*virtex demo RUN"):
        DemoConfig()
    QUICKSTART.mkdir(parents=True)
    assert DemoConfig().init == str(QUICKSTART)


def test_all_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        DemoConfig("run", max_upload_mb=0, port=70_000, gallery=tmp_path / "gone")
    for option in ("--max_upload_mb", "--port", "--gallery"):
        assert option in str(caught.value)


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    for module in ("virtex.demo.server", "virtex.demo.page"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ConfigError, match=r"needs gradio.*pip install 'virtex\[demo\]'"):
        demo(DemoConfig("run"))


def test_the_command_says_what_is_wrong_and_exits_with_2(tmp_path, capsys):
    assert main(["demo", str(tmp_path / "nothing"), "--port", "0"]) == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_a_second_demo_on_the_same_port_is_told_at_once(run_folder, capsys):
    with listen("127.0.0.1", 0) as first:
        port = str(first.getsockname()[1])
        assert main(["demo", str(run_folder), "--port", port]) == 2
    assert f"--host 127.0.0.1 --port {port}" in capsys.readouterr().err
