"""A stand-in for Azure Files, for tests and demonstrations: a small server of the REST calls that orlop uses.

It is **not** Azure, and nobody at Microsoft has seen it. It is written from Microsoft's public REST specification
(learn.microsoft.com/rest/api/storageservices); what it must answer is recorded in tests/testing/azure/*.txt, where
each pair of request and response can be compared with the real service.

    with AzureFiles(folder, Credentials("account", KEY)) as azure:
        ... AZURE_STORAGE_ENDPOINT=azure.url ...

A share is a folder, which `orlop.testing.samba.Samba` can export to real SMB clients. What a share is made of in
Azure (quota that is enforced, snapshots, access tiers, leases) is not there.

``python -m orlop.testing.azure FOLDER`` runs it alone, for instance in a `orlop.testing.machine.Machine`.
"""
