"""DICOM results in a real archive: stored, found again, fetched, equal. Orthanc, on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset

from cxrg.image.read import read_image
from cxrg.output import formats
from cxrg.phantom.dx import write_dx
from tests.fakes import samples

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
TOOLS = ("Orthanc", "storescu", "getscu")
DICOM = formats.IDENTIFYING_FORMATS
START_SECONDS = 120.0  # until Orthanc must answer: CI machines are busy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PLUGIN.exists() or not all(map(shutil.which, TOOLS)),
        reason="orthanc, orthanc-dicomweb or dcmtk (Debian) is not installed",
    ),
]


@dataclass(frozen=True)
class Archive:
    """A running Orthanc."""

    http: int
    dicom: int

    @property
    def web(self) -> DICOMwebClient:
        return DICOMwebClient(url=f"http://127.0.0.1:{self.http}/dicom-web")

    def run(self, tool: str, options: Sequence[object] = (), files: Sequence[Path] = ()) -> None:
        """Run a tool of dcmtk against the archive."""
        peer = ("127.0.0.1", self.dicom)
        command = [tool, "-aec", "ORTHANC", *map(str, (*options, *peer, *files))]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr


def free_ports() -> list[int]:
    """Two ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/system", timeout=10) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture
def archive(tmp_path: Path, socket_enabled: None) -> Iterator[Archive]:
    http, dicom = free_ports()
    configuration = {
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "StorageDirectory": str(tmp_path / "storage"),
        "IndexDirectory": str(tmp_path / "storage"),
        "Plugins": [str(PLUGIN)],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
    }
    file = tmp_path / "orthanc.json"
    file.write_text(json.dumps(configuration))
    with (tmp_path / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(["Orthanc", file], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not answers(http):
                assert process.poll() is None, (tmp_path / "orthanc.log").read_text()
                assert time.monotonic() < deadline, "Orthanc does not answer"
                time.sleep(0.2)
            yield Archive(http, dicom)
        finally:
            process.terminate()
            process.wait(60)


def write(folder: Path) -> list[Path]:
    """A source and the DICOM objects of one result."""
    folder.mkdir()
    source = folder / "source.dcm"
    pixels = np.random.default_rng(5).integers(0, 4096, (96, 80)).astype(np.uint16)
    write_dx(source, pixels, seed=5)
    image = read_image(source, side=64)
    files = formats.paths(folder, "result", DICOM)
    formats.write(samples.grounding(image, "Erguß links"), image, files)
    return [source, *files.values()]


def by_storescu(archive: Archive, files: Sequence[Path]) -> None:
    archive.run("storescu", ["-R"], files)


def by_web(archive: Archive, files: Sequence[Path]) -> None:
    archive.web.store_instances([pydicom.dcmread(file) for file in files])


def by_getscu(archive: Archive, study: str, folder: Path) -> list[Dataset]:
    """All objects of a study, by C-GET."""
    folder.mkdir()
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}")
    archive.run("getscu", ["-S", "-od", folder, *keys])
    return [pydicom.dcmread(file) for file in folder.iterdir()]


@pytest.mark.parametrize("store", [by_storescu, by_web])
def test_what_is_stored_is_found_and_fetched_equal(
    archive: Archive, tmp_path: Path, store: Callable[[Archive, Sequence[Path]], None]
) -> None:
    files = write(tmp_path / "first")
    sent = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, files)}
    (study,) = {ds.StudyInstanceUID for ds in sent.values()}
    store(archive, files)
    store(archive, write(tmp_path / "again"))  # a repeated run, which adds nothing
    found = archive.web.search_for_instances(study)
    assert sorted(each["00080018"]["Value"][0] for each in found) == sorted(sent)
    for uid, ds in sent.items():
        assert archive.web.retrieve_instance(study, ds.SeriesInstanceUID, uid) == ds, ds.Modality
    fetched = by_getscu(archive, study, tmp_path / "fetched")
    assert {ds.SOPInstanceUID: ds for ds in fetched} == sent
