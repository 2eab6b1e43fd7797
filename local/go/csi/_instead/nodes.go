// In place of pkg/capacity/topology/nodes.go of the external-provisioner, which calls two functions that client-go 0.35
// has not got. It watches all nodes for a provisioner that serves the whole cluster. The local cluster's serves its own
// node (--node-deployment) and never asks for this.
package topology

import (
	coreinformersv1 "k8s.io/client-go/informers/core/v1"
	storageinformersv1 "k8s.io/client-go/informers/storage/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
)

func NewNodeTopology(
	string,
	kubernetes.Interface,
	coreinformersv1.NodeInformer,
	storageinformersv1.CSINodeInformer,
	workqueue.TypedRateLimitingInterface[string],
) Informer {
	panic("this csi-provisioner was compiled for --node-deployment alone")
}
