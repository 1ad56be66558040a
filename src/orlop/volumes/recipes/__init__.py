"""How each kind of remote volume is mounted: a module for each, with a function from options to a `Mount`."""

from collections.abc import Mapping

from orlop.volumes.recipes.ceph import CEPH
from orlop.volumes.recipes.cifs import CIFS
from orlop.volumes.recipes.gluster import GLUSTER
from orlop.volumes.recipes.nfs import NFS
from orlop.volumes.recipes.rclone import RCLONE
from orlop.volumes.recipes.s3 import S3
from orlop.volumes.recipes.sshfs import SSHFS
from orlop.volumes.remote import Recipe

RECIPES: Mapping[str, Recipe] = {
    "ceph": CEPH,
    "cifs": CIFS,
    "gluster": GLUSTER,
    "nfs": NFS,
    "rclone": RCLONE,
    "s3": S3,
    "sshfs": SSHFS,
}
"""Every kind of remote volume, by the name of its driver."""
