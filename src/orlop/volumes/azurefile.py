"""Azure file shares, as Cloudstor had them: the driver ``azurefile``. One share for each volume, mounted by SMB 3.

    docker volume create -d orlop -o driver=azurefile -o uid=1000 sharedvol1

Every host that has the same account sees the same volumes. The account is set for the daemon (or by ``docker plugin
set``): AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_ENDPOINT; with CLOUD_PLATFORM=AZURE this
driver is chosen where nothing is said. docs/cloudstor.md tells the rest.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orlop.errors import Busy, Conflict, Corrupt, Invalid, NotFound
from orlop.mount import Mount
from orlop.volumes import azure_options, network
from orlop.volumes import azure_record as record
from orlop.volumes.azure_account import ACCOUNT, KEY, Account, Share
from orlop.volumes.azure_options import share_of
from orlop.volumes.azure_record import Record
from orlop.volumes.driver import Scope, Volume

_NAME = "azurefile"
_ROUNDS = 3
"""How often a share may come or go between looking and making."""
_NO_DIFFERENCE = frozenset({"backing", "share", "size"})
"""Options that can be said in two ways, and the one that another host may have changed."""
_log = logging.getLogger(__name__)


class AzureFileDriver:
    """File shares of one storage account."""

    scope: Scope = "global"

    def __init__(self, settings: Mapping[str, str]):
        """``settings``: see `orlop.volumes.azure_account`; they are looked at when a verb needs them."""
        self._settings = settings

    def options(self) -> Mapping[str, str]:
        """See `VolumeDriver.options`."""
        return azure_options.HELP

    def create(self, volume: Volume) -> None:
        """See `VolumeDriver.create`: one share, whoever else creates it meanwhile."""
        azure_options.check(volume)
        account, share = Account.of(self._settings), share_of(volume)
        for _ in range(_ROUNDS):
            found = account.look(share)
            if found is not None:
                _take(account, found, volume)
                return
            _refuse_second(account, volume)
            if account.make(share, record.written(Record(volume, made=True), {}), azure_options.quota(volume)):
                _log.info("volume %r is share %r of account %r", volume.name, share, account.name)
                return
        raise Busy(f"share {share!r} of account {account.name!r} comes and goes; try again")

    def remove(self, volume: Volume) -> None:
        """See `VolumeDriver.remove`. A share that was there before the volume keeps its files."""
        account, share = Account.of(self._settings), share_of(volume)
        found = account.look(share)
        written = found and record.read(share, _NAME, found.metadata)
        if not found or not written or written.volume.name != volume.name:
            return
        if _difference(written.volume, volume):
            _log.warning("share %r is kept: volume %r on it has other options", share, volume.name)
        elif written.made:
            account.delete(share)
        else:
            account.describe(share, record.without(found.metadata))

    def attach(self, volume: Volume) -> Sequence[Mount]:
        """See `VolumeDriver.attach`. The service itself is asked by the kernel, when it mounts."""
        account = Account.of(self._settings)
        options = (f"ip={network.address(account.host)}", f"username={account.name}", *azure_options.for_kernel(volume))
        return [Mount("cifs", f"//{account.host}/{share_of(volume)}", options, secrets=(("password", account.key),))]

    def detach(self, volume: Volume) -> None:
        """Nothing to undo."""

    def resize(self, volume: Volume, mountpoint: Path | None) -> None:
        """See `orlop.volumes.driver.Resizable`: the quota grows, mounted or not, in whole GiB."""
        del mountpoint  # the service tells its clients
        quota = azure_options.quota(volume)
        if quota is None:
            return
        account, share = Account.of(self._settings), share_of(volume)
        found = account.look(share)
        if found is None:
            raise NotFound(f"share {share!r} of account {account.name!r} has gone; its volume is {volume.name!r}")
        if found.quota > quota:
            raise Invalid(f"volume {volume.name!r} has {found.quota} GiB already; a volume can grow, not shrink")
        if found.quota < quota:
            account.resize(share, quota)
        written = record.read(share, _NAME, found.metadata)
        if written and azure_options.quota(written.volume) != quota:
            options = {**written.volume.options, "size": volume.options["size"]}
            grown = replace(written, volume=replace(written.volume, options=options))
            account.describe(share, record.written(grown, found.metadata))

    def is_set_up(self) -> bool:
        """See `orlop.volumes.driver.Listed`."""
        return bool(self._settings.get(ACCOUNT) and self._settings.get(KEY))

    def lists(self, volume: Volume) -> bool:
        """See `orlop.volumes.driver.Listed`: there is one backend."""
        del volume
        return True

    def found(self) -> Iterable[Volume]:
        """See `orlop.volumes.driver.Listed`."""
        yield from (volume for _, volume in _volumes(Account.of(self._settings)))


def _take(account: Account, found: Share, volume: Volume) -> None:
    """Use the share that is there, if it is ``volume``'s or nobody's."""
    written = record.read(found.name, _NAME, found.metadata)
    if written is None:
        account.describe(found.name, record.written(Record(volume, made=False), found.metadata))
        _log.info("volume %r takes over share %r of account %r", volume.name, found.name, account.name)
    elif written.volume.name != volume.name:
        raise Conflict(
            f"share {found.name!r} of account {account.name!r} is volume {written.volume.name!r} already; name another"
        )
    else:
        _refuse_difference(account, found, written.volume, volume)


def _refuse_difference(account: Account, found: Share, there: Volume, volume: Volume) -> None:
    """The same options on every host; but for the size, which may have grown since somebody wrote it down."""
    what = f"volume {volume.name!r} is on account {account.name!r} already"
    option = _difference(there, volume)
    if option:
        has, wanted = (each.options.get(option, "none") for each in (there, volume))
        raise Conflict(f"{what}, with option {option!r} {has!r}, not {wanted!r}")
    if (azure_options.quota(volume) or 0) > found.quota:
        raise Conflict(f"{what}, with {found.quota} GiB; create it without 'size', then see 'orlop volume update'")


def _difference(there: Volume, volume: Volume) -> str:
    """The first option that is another one in two definitions of the volume of one share; empty if none is."""
    options = sorted({*there.options, *volume.options} - _NO_DIFFERENCE)
    return next((option for option in options if there.options.get(option) != volume.options.get(option)), "")


def _refuse_second(account: Account, volume: Volume) -> None:
    """A volume has one share: data that seems to be lost is only in the other."""
    for share, there in _volumes(account):
        if there.name == volume.name and share != share_of(volume):
            options = {**there.options, "share": share}
            raise Conflict(
                f"volume {volume.name!r} is share {share!r} of account {account.name!r} already; "
                f"use the options it has: {', '.join(f'{name}={text}' for name, text in options.items())}"
            )


def _volumes(account: Account) -> Iterable[tuple[str, Volume]]:
    """Every volume of the account, with the name of its share."""
    for share in account.shares():
        try:
            written = record.read(share.name, _NAME, share.metadata)
        except Corrupt as error:
            _log.warning("%s", error)
            continue
        if written:
            yield share.name, written.volume
