"""An account of the stand-in for Azure Files, for the tests that need one."""

import base64

from orlop.testing.azure.server import AzureFiles
from orlop.testing.azure.sharedkey import Credentials

ACCOUNT = "orlopstandin"
KEY = base64.b64encode(b"the key of an account that nobody has, sixty-four bytes of it...").decode()
CREDENTIALS = Credentials(ACCOUNT, KEY)


def settings(azure: AzureFiles, **others: str) -> dict[str, str]:
    """What a daemon that uses the stand-in is told."""
    return {
        "AZURE_STORAGE_ACCOUNT": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "AZURE_STORAGE_ENDPOINT": azure.url,
        **others,
    }
