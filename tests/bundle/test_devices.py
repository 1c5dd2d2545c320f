"""A GPU is used when it is asked for; without one, an error says what is missing."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from command_line import Run, one_line

import pidgan
from pidgan.bundle import devices, session
from pidgan.bundle.devices import chosen_device, use_device

NO_GPU = pytest.mark.skipif(devices.has_cuda(), reason="onnxruntime knows a GPU here")


@pytest.fixture(autouse=True)
def _process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(devices.VARIABLE, raising=False)


def targets(device: Any) -> np.ndarray:
    bundle = pidgan.open_bundle("demo-kaon", device=device)
    test = {k: np.asarray(v, np.float32) for k, v in bundle.card.self_test.items()}
    return bundle.generate(test["conditions"], test["noise"])


@NO_GPU
def test_without_a_gpu_nothing_changes() -> None:
    np.testing.assert_array_equal(targets("auto"), targets("cpu"))
    np.testing.assert_array_equal(targets(None), targets("cpu"))


@NO_GPU
def test_a_gpu_that_is_missing_is_an_error(run: Run) -> None:
    missing = "has no CUDAExecutionProvider, only .*install onnxruntime-gpu in place"
    with pytest.raises(pidgan.PidganError, match=missing):
        use_device("cuda")
    with pytest.raises(pidgan.PidganError, match=missing):
        pidgan.open_bundle("demo-kaon", device="cuda")
    words = ("apply", "x.root", "--track", "K=demo-kaon", "-o", "y.root")
    one_line(run(*words, "--device", "cuda"), "device cuda: onnxruntime")
    found = run(*words, "--device", "gpu")
    assert found.code == 2
    assert "'cpu', 'cuda', 'auto'" in found.err


def test_the_device_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_device() == "cpu"
    monkeypatch.setenv(devices.VARIABLE, "auto")
    assert chosen_device() == "auto"
    assert chosen_device("cpu") == "cpu"
    monkeypatch.setenv(devices.VARIABLE, "cudaa")
    with pytest.raises(pidgan.PidganError, match=r"'cudaa'.*closest: 'cuda'"):
        pidgan.open_bundle("demo-kaon")


class Gpu:
    """An onnxruntime with a GPU, as far as sessions see it."""

    def __init__(self, *, works: bool) -> None:
        self.works = works
        self.asked: list[list[str]] = []
        self._real = onnxruntime.InferenceSession

    def session(self, data: bytes, options: Any, providers: list[str]) -> Any:
        self.asked.append(providers)
        made = self._real(data, options, providers=[devices.CPU])
        if providers[0] == devices.CUDA and self.works:
            made.get_providers = lambda: providers
        return made


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Gpu:
    found = Gpu(works=request.param)
    listed = [devices.CUDA, devices.CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    monkeypatch.setattr(onnxruntime, "InferenceSession", found.session)
    session._shared.cache_clear()
    return found


@pytest.mark.parametrize("gpu", [True], indirect=True)
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_a_gpu_is_asked_for(gpu: Gpu, device: Any) -> None:
    found = targets(device)
    assert gpu.asked == [[devices.CUDA, devices.CPU]]
    expected = targets("cpu")
    assert [devices.CPU] in gpu.asked
    scale = np.maximum(1, np.abs(expected))
    assert (np.abs(found - expected) <= 1e-4 * scale).mean() > 0.99


@pytest.mark.parametrize("gpu", [False], indirect=True)
def test_a_gpu_that_does_not_start(gpu: Gpu) -> None:
    with pytest.raises(pidgan.PidganError, match="cannot be used: no GPU, no driver"):
        targets("cuda")
    np.testing.assert_array_equal(targets("auto"), targets("cpu"))


def test_a_record_names_a_device_that_is_not_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pidgan.application.request import Request

    request = Request(tracks={"K": "demo-kaon"})
    assert "device" not in request.record({}, {})
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    assert request.record({}, {})["device"] == "cuda"
