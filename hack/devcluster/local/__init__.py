"""The local cluster: real Kubernetes components as processes of this machine, which has to be Linux, and ours (root).

provider.py       attach, or clean up and start; the order in which things start
controlplane.py   etcd, API server, controller manager, scheduler
node.py           containerd, kubelet, kube-proxy
network.py        the bridge with the node's address, CNI, masquerading, kernel parameters
dns.py            CoreDNS as a process of the host, behind the usual Service
node_images.py    the two images that have to exist: pause and thin
leftovers.py      removes all of it, also after a kill -9 of everything
"""
