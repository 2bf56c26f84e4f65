"""A development cluster on one machine, from nothing, in one command.

Read it in this order:

    cli.py            the commands; which provider serves them is decided in providers.py
    byo.py            a cluster that somebody named in TUNINGFORK_KUBECONFIG
    kind.py           kind, where a Docker engine answers
    local/            otherwise: a control plane and a kubelet of our own, as processes of this machine
    host_services.py  S3 and Prometheus beside the first two
    s3.py, prometheus.py, simulated.py, gpus.py    what every cluster gets: S3, metrics, simulated GPU nodes
    thin.py, info.py                               what a checkout learns: kubeconfig, addresses, the thin pod fragment
    gobuild.py, tools.py, debian.py                where the programs come from
    settings.py                                    versions, addresses, ports
    daemons.py, probes.py, locks.py, shell.py, console.py, kube.py, pki.py, docker_archive.py    one small job each

Nothing here imports anything but the standard library, and no file names a registry or a path of one machine: Go's
proxy, pip's index and apt's mirrors come from their own configuration.
"""
