// Command local-volumes provisions volumes as folders of the node a pod was scheduled to.
//
// It runs beside the control plane, outside of the nodes, and sees their disks as --nodes/<node>/<disk>; pods see the
// same folders as --path. Folders belong to root, as a fresh disk does: pods of other users need an fsGroup.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const (
	provisionerName = "sluice.dev/local-volumes"
	hostname        = "kubernetes.io/hostname"
)

type provisioner struct {
	// nodes holds a folder per node.
	nodes string
	// disk is the path of the volumes' folder in a node's folder.
	disk string
	// path is where a node itself sees it.
	path string
}

// folder is where this process sees a volume. Names come from the API server, which allows no slashes; a name that
// would leave the disk is refused all the same.
func (p *provisioner) folder(node, volume string) (string, error) {
	if !filepath.IsLocal(node) || !filepath.IsLocal(volume) {
		return "", fmt.Errorf("not a name: %q, %q", node, volume)
	}
	return filepath.Join(p.nodes, node, p.disk, volume), nil
}

func (p *provisioner) Provision(_ context.Context, options controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	if options.SelectedNodeName == "" {
		return nil, controller.ProvisioningFinished, errors.New("the class must wait for the first consumer: volumes belong to a node")
	}
	node := options.SelectedNodeName
	folder, err := p.folder(node, options.PVName)
	if err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	if _, err := os.Stat(filepath.Join(p.nodes, node, p.disk)); err != nil {
		return nil, controller.ProvisioningNoChange, fmt.Errorf("node %s has no disk: %w", node, err)
	}
	if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, controller.ProvisioningNoChange, err
	}
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: v1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   options.PVC.Spec.AccessModes,
			VolumeMode:                    options.PVC.Spec.VolumeMode,
			Capacity:                      v1.ResourceList{v1.ResourceStorage: options.PVC.Spec.Resources.Requests[v1.ResourceStorage]},
			PersistentVolumeSource: v1.PersistentVolumeSource{
				Local: &v1.LocalVolumeSource{Path: filepath.Join(p.path, options.PVName)},
			},
			NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
				MatchExpressions: []v1.NodeSelectorRequirement{{Key: hostname, Operator: v1.NodeSelectorOpIn, Values: []string{node}}},
			}}}},
		},
	}, controller.ProvisioningFinished, nil
}

func (p *provisioner) Delete(_ context.Context, volume *v1.PersistentVolume) error {
	node, err := nodeOf(volume)
	if err != nil {
		return err
	}
	folder, err := p.folder(node, volume.Name)
	if err != nil {
		return err
	}
	return os.RemoveAll(folder)
}

func nodeOf(volume *v1.PersistentVolume) (string, error) {
	if volume.Spec.NodeAffinity != nil && volume.Spec.NodeAffinity.Required != nil {
		for _, term := range volume.Spec.NodeAffinity.Required.NodeSelectorTerms {
			for _, expression := range term.MatchExpressions {
				if expression.Key == hostname && len(expression.Values) == 1 {
					return expression.Values[0], nil
				}
			}
		}
	}
	return "", fmt.Errorf("volume %s names no node", volume.Name)
}

func run() error {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	p := &provisioner{}
	flag.StringVar(&p.nodes, "nodes", "", "folder with a folder per node")
	flag.StringVar(&p.disk, "disk", "", "path of the volumes' folder in a node's folder")
	flag.StringVar(&p.path, "path", "", "path of the same folder as the node sees it")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx = klog.NewContext(ctx, klog.Background())
	controller.NewProvisionController(ctx, client, provisionerName, p,
		controller.LeaderElection(false), controller.MetricsPort(0)).Run(ctx)
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "local-volumes:", err)
		os.Exit(1)
	}
}
