"""The stand-in for Azure Files answers as documented in azure/*.txt, and has a document for all that orlop asks."""

import http.client
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from tests.azure_account import CREDENTIALS, settings

from orlop.testing.azure.messages import Request
from orlop.testing.azure.server import AzureFiles
from orlop.testing.azure.sharedkey import Credentials, string_to_sign
from orlop.testing.azure.shares import OPERATIONS
from orlop.volumes.azurefile import AzureFileDriver
from orlop.volumes.driver import Volume

DOCUMENTS = sorted((Path(__file__).parent / "azure").glob("*.txt"))


@dataclass
class Exchange:
    """A request, and the response that it must have."""

    method: str
    address: str
    sent: dict[str, str] = field(default_factory=dict)
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


def read(document: Path) -> list[Exchange]:
    found: list[Exchange] = []
    for line in document.read_text().splitlines():
        if re.match(r"> [A-Z]+ /", line):
            method, address = line[2:].split()
            found.append(Exchange(method, address))
        elif re.match(r"< \d+$", line):
            found[-1].status = int(line[2:])
        elif line.startswith("<< "):
            found[-1].body += line[3:]
        elif line.startswith(("> ", "< ")):
            name, _, value = line[2:].partition(": ")
            (found[-1].sent if line[0] == ">" else found[-1].headers)[name] = value
    return found


def signed(exchange: Exchange) -> dict[str, str]:
    headers = {
        name: formatdate(usegmt=True) if (name, value) == ("x-ms-date", "*") else value
        for name, value in exchange.sent.items()
    }
    asked = headers.get("Authorization", "")
    if asked.endswith(":*"):
        url = urlsplit(exchange.address)
        lower = {name.lower(): value for name, value in headers.items()}
        request = Request(exchange.method, url.path, dict(parse_qsl(url.query)), lower)
        account = asked.split()[1].split(":")[0]
        headers["Authorization"] = Credentials(account, CREDENTIALS.key).authorization(request)
    return headers


def matches(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), text, re.DOTALL) is not None


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[AzureFiles]:
    with AzureFiles(tmp_path / "shares", CREDENTIALS) as azure:
        azure.shares.deletion = 600
        yield azure


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.stem)
def test_it_answers_as_documented(azure: AzureFiles, document: Path) -> None:
    exchanges = read(document)
    assert len(exchanges) >= 3

    for exchange in exchanges:
        connection = http.client.HTTPConnection(urlsplit(azure.url).netloc, timeout=10)
        connection.request(exchange.method, exchange.address, headers=signed(exchange))
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()

        what = f"{exchange.method} {exchange.address}: {response.status} {response.getheaders()} {body}"
        assert response.status == exchange.status, what
        for name, pattern in exchange.headers.items():
            assert matches(pattern, response.getheader(name, "(none)")), f"{name} of {what}"
        assert not exchange.body or matches(exchange.body, body), what


def operation(method: str, query: dict[str, str]) -> tuple[str, str | None, str | None]:
    return method, query.get("restype"), query.get("comp")


def test_every_call_that_orlop_makes_has_a_document(azure: AzureFiles) -> None:
    azure.shares.deletion = 0
    driver = AzureFileDriver(settings(azure))
    for share in ("made", "found"):
        volume = Volume("data", "azurefile", {"share": share, "size": "2g"})
        driver.create(volume)
        driver.resize(Volume("data", "azurefile", {"share": share, "size": "3g"}), None)
        list(driver.found())
        driver.remove(volume)

    made = {operation(request.method, dict(request.query)) for request in azure.asked}
    documented = {
        operation(exchange.method, dict(parse_qsl(urlsplit(exchange.address).query)))
        for document in DOCUMENTS
        for exchange in read(document)
    }

    assert made == documented == set(OPERATIONS) - {("HEAD", "share", None)}


def test_the_signed_text_is_that_of_the_specifications_example() -> None:
    headers = {"x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT", "x-ms-version": "2015-02-21", "content-length": "0"}
    query = {"timeout": "20", "restype": "container", "comp": "metadata"}

    text = string_to_sign("myaccount", Request("GET", "/mycontainer", query, headers))

    assert text == (
        "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n"
        "/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
    )


def test_a_deleted_shares_folder_goes_with_its_files(azure: AzureFiles) -> None:
    driver = AzureFileDriver(settings(azure))
    driver.create(Volume("data", "azurefile", {"share": "made"}))
    (azure.shares.folder / "made/folder").mkdir()
    (azure.shares.folder / "made/folder/file").write_text("x")

    driver.remove(Volume("data", "azurefile", {"share": "made"}))

    assert list(azure.shares.folder.iterdir()) == []
