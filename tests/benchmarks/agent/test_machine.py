"""What a machine says of itself, read from folders that look like /proc and /sys of known machines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.agent.machine import EnergyMeter, available_bytes, condition, facts, resident_bytes
from benchmarks.results.result import Condition, DeviceFacts
from runtimes.records import from_json


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


PI = {
    "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd08\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.5\n",
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.5\0",
    "etc/os-release": 'NAME=Debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "600000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/class/thermal/thermal_zone0/temp": "61342\n",
    "sys/class/thermal/thermal_zone1/temp": "55000\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
}


def test_a_raspberry_pi_says_so(tmp_path):
    found = facts(machine(tmp_path, PI))
    assert found["model"] == "Raspberry Pi 4 Model B Rev 1.5" and found["family"] == "raspberry-pi"
    assert found["cpu"] == "Cortex-A72" and found["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert found["executed"] == "physical" and found["emulator"] == ""


def test_its_condition(tmp_path):
    found = condition(machine(tmp_path, PI))
    assert found["frequencies_khz"] == [1800000, 600000] and found["governor"] == "ondemand"
    assert found["temperature_c"] == 61.342, "the hottest"
    assert found["throttled"] == ["under-voltage", "throttled"], "0x50005: bits 0 and 2 are now, 16 and 18 were"


def test_another_board_and_a_desktop(tmp_path):
    board = machine(tmp_path / "a", {"sys/firmware/devicetree/base/model": "Radxa ROCK 5B\0"})
    assert facts(board)["family"] == "board"
    desktop = machine(
        tmp_path / "b",
        {"proc/cpuinfo": "model name : AMD Ryzen 7\n", "sys/class/dmi/id/sys_vendor": "LENOVO\n"},
    )
    found = facts(desktop)
    assert (found["family"], found["model"], found["cpu"]) == ("desktop", "LENOVO", "AMD Ryzen 7")


def test_a_machine_without_a_name_is_known_by_its_processor(tmp_path):
    """Not by its host name, which another container on the same machine would not share: results are compared by it."""
    found = facts(machine(tmp_path, {"proc/cpuinfo": "model name : AMD Ryzen 7\n"}))
    assert found["model"] == found["cpu"] == "AMD Ryzen 7"


def test_user_mode_emulation_is_found_behind_a_thread(tmp_path):
    (tmp_path / "proc/thread-self").mkdir(parents=True)
    (tmp_path / "proc/thread-self/exe").symlink_to("/usr/bin/qemu-aarch64")
    found = facts(machine(tmp_path, PI))
    assert found["executed"] == "emulated" and found["emulator"] == "qemu-aarch64"


def test_throttling_that_linux_counts(tmp_path):
    counter = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    assert condition(machine(tmp_path, {counter: "0\n"}))["throttled"] == []
    assert condition(machine(tmp_path, {counter: "7\n"}))["throttled"] == ["throttled 7 times since it booted"]


def test_what_a_machine_does_not_say_is_unknown(tmp_path):
    found = condition(tmp_path)
    assert found["frequencies_khz"] == [] and found["governor"] is None
    assert found["temperature_c"] is None and found["throttled"] is None
    assert available_bytes(tmp_path) is None


def test_this_machine_in_the_words_of_the_results():
    told = from_json(DeviceFacts, facts())
    assert told.cores == os.cpu_count() and told.memory_bytes > 2**28 and told.cpu and told.model
    from_json(Condition, {"at_ns": 0, "when": "before", **condition()})


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_resident_memory_grows_with_what_is_held():
    before, _ = resident_bytes()
    held = bytearray(50_000_000)
    after, peak = resident_bytes()
    assert 45_000_000 < after - before < 80_000_000 and peak >= after and held[0] == 0
    assert available_bytes() > 2**20


# --- energy --------------------------------------------------------------------------------------------------------


def test_rapl_counts_packages_and_survives_its_wrap(tmp_path):
    package = "sys/class/powercap/intel-rapl:0"
    root = machine(
        tmp_path,
        {
            f"{package}/energy_uj": "9000000",
            f"{package}/max_energy_range_uj": "10000000",
            f"{package}:0/energy_uj": "77",
        },
    )
    meter = EnergyMeter(root)
    meter.start(0)
    machine(root, {f"{package}/energy_uj": "9500000", f"{package}:0/energy_uj": "99999999"})
    assert meter.source == "RAPL" and meter.stop(10) == pytest.approx(0.5)
    meter.start(10)
    machine(root, {f"{package}/energy_uj": "250000"})
    assert meter.stop(20) == pytest.approx(0.75)


def test_hwmon_power_is_taken_at_both_ends(tmp_path):
    power = "sys/class/hwmon/hwmon0/power1_input"
    meter = EnergyMeter(machine(tmp_path, {power: "2000000"}))
    meter.start(0)
    machine(tmp_path, {power: "4000000"})
    assert meter.source == "hwmon" and meter.stop(2_000_000_000) == pytest.approx(6.0), "3 W for 2 s"


def test_hwmon_energy(tmp_path):
    energy = "sys/class/hwmon/hwmon1/energy1_input"
    meter = EnergyMeter(machine(tmp_path, {energy: "1000000"}))
    meter.start(0)
    machine(tmp_path, {energy: "1500000"})
    assert meter.stop(1) == pytest.approx(0.5)


def test_energy_is_unknown_without_a_counter_or_with_one_that_may_not_be_read(tmp_path):
    meter = EnergyMeter(tmp_path)
    meter.start(0)
    assert meter.stop(1) is None and meter.note == "no energy counter"
    meter = EnergyMeter(machine(tmp_path, {"sys/class/powercap/intel-rapl:0/energy_uj": "denied"}))
    meter.start(0)
    assert meter.stop(1) is None and meter.note == "RAPL may not be read"
